"""Sending: sign and store first, then broadcast; after that an error means unknown, never failed.

The chain is asked before the lock is taken; under the lock there is only: take the nonce, sign, store.
"""

import logging

from django.conf import settings
from django.db import connection, transaction
from django.db.models import F, Max, Q
from django.utils import timezone

from contracts.chain import GAS_MARGIN, Block, Call, Chain, ChainError, Fees, Key, Reverted, Signed
from dmlsite import jobs
from ledger import actions
from ledger.alarms import Kind, alarm, halted
from ledger.gateway import chain, key
from ledger.models import Attempt, ChainTx
from ledger.scanner import require_same_chain

log = logging.getLogger(__name__)
State = ChainTx.State

PATIENCE = 60
"""Seconds for which the chain may refuse an intent without an alarm: its predecessor may not be mined yet."""


def due() -> list[str]:
    """Intents that are to be sent, or sent again because the chain has not taken them yet."""
    ripe = Q(not_before=None) | Q(not_before__lte=timezone.now())
    ready = ChainTx.objects.filter(ripe, state__in=[State.READY, State.SENT]).order_by("nonce", "created")
    return [str(pk) for pk in ready.values_list("pk", flat=True)]


def send(tx: ChainTx) -> None:
    """Bring an intent one step on: sign it if it was not, then broadcast the stored bytes."""
    if tx.not_before and tx.not_before > timezone.now():
        return
    if tx.state == State.READY:
        _sign_checked(tx, chain())
    elif tx.state == State.SENT:
        _raise_fees(tx, chain())
    attempt = tx.attempts.last()
    if attempt and ChainTx.objects.filter(pk=tx.pk, state=State.SENT).exists():
        broadcast(attempt)


# --- Signing ----------------------------------------------------------------------------------------------------------
def _sign_checked(tx: ChainTx, on: Chain) -> None:
    if halted(tx, key(tx.role).address):
        return
    require_same_chain(on)
    try:
        _sign(tx, on)
    except Reverted as error:
        _refused(tx, error)


def _refused(tx: ChainTx, error: Reverted) -> None:
    """The chain would refuse it now. Either there is another decision to take, or it stays ready, and we say so."""
    if actions.reconsider(tx, error):
        return
    ChainTx.objects.filter(pk=tx.pk, state=State.READY).update(error=str(error))
    waited = timezone.now() - (tx.not_before or tx.created)
    if waited.total_seconds() > PATIENCE:
        alarm(Kind.REFUSED, f"{tx}: {error}", tx.case)


def _sign(tx: ChainTx, on: Chain) -> None:
    """Take the next nonce and store the signed bytes, in one short transaction that serialises on the sender."""
    private = key(tx.role)
    sender = private.address
    call = _call(tx)
    gas = int(on.estimate(call, sender) * GAS_MARGIN)
    fees = on.suggest_fees(settings.CHAIN_TIP_GWEI)
    final, mined = on.final_nonce(sender), on.confirmed_nonce(sender)
    with transaction.atomic():
        _lock(sender)
        fresh = ChainTx.objects.select_for_update().get(pk=tx.pk)
        if fresh.state != State.READY or halted(fresh, sender):
            return
        following = _following_nonce(sender)
        nonce = final if following is None else following
        if mined > nonce:
            return  # somebody else spends our nonces: `confirm` tells when that is final, until then a reorg may undo it
        _store(fresh, on.sign(call, private, nonce, fees=fees, gas=gas))
        ChainTx.objects.filter(pk=tx.pk).update(state=State.SENT, sender=sender, nonce=nonce, error="")


def _following_nonce(sender: str) -> int | None:
    """The one after the highest that we know of; None if we never sent anything with this key."""
    last = ChainTx.objects.filter(sender=sender).aggregate(top=Max("nonce"))["top"]
    return None if last is None else int(last) + 1


def _call(tx: ChainTx) -> Call:
    return Call(to=tx.to, data=tx.data, value_gwei=tx.value_gwei)


def _store(tx: ChainTx, signed: Signed) -> None:
    Attempt.objects.create(
        tx=tx,
        raw=signed.raw,
        hash=signed.hash,
        gas=signed.gas,
        max_fee_gwei=signed.max_fee_gwei,
        tip_gwei=signed.tip_gwei,
    )


def _lock(sender: str) -> None:
    """One signer at a time per key, whatever the number of job processes."""
    with connection.cursor() as cursor:
        cursor.execute("select pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"sender:{sender.lower()}"])


# --- Higher fees ------------------------------------------------------------------------------------------------------
def _raise_fees(tx: ChainTx, on: Chain) -> None:
    """If it waits too long to be mined. Mined but not final yet is no reason: that takes its time."""
    last = tx.attempts.last()
    if last and is_stuck(last) and not any(on.receipt(attempt.hash) for attempt in tx.attempts.all()):
        bump(last, key(tx.role), on)


def is_stuck(attempt: Attempt) -> bool:
    """Whether a transaction waits so long that a higher fee is due."""
    return (timezone.now() - attempt.created).total_seconds() > settings.CHAIN_BUMP_SECONDS


def raised(fees: Fees, cap_gwei: int) -> Fees | None:
    """Both fees times 1.125, rounded up: the least that pools take as a replacement. None if that is above the cap."""
    more = Fees(-(-fees.max_fee_gwei * 9 // 8), -(-fees.tip_gwei * 9 // 8))
    return more if more.max_fee_gwei <= cap_gwei else None


def bump(attempt: Attempt, private: Key, on: Chain) -> None:
    """Sign the same call with the same nonce and gas for higher fees: whichever attempt is mined, it happens once."""
    tx = attempt.tx
    fees = raised(Fees(attempt.max_fee_gwei, attempt.tip_gwei), settings.CHAIN_MAX_FEE_GWEI)
    if fees is None:
        alarm(Kind.FEE_CAP, f"{tx} is not taken at {attempt.max_fee_gwei} gwei", tx.case)
        return
    signed = on.sign(_call(tx), private, tx.nonce, fees=fees, gas=attempt.gas)
    with transaction.atomic():
        _lock(private.address)
        if tx.attempts.last() == attempt and ChainTx.objects.filter(pk=tx.pk, state=State.SENT).exists():
            _store(tx, signed)


# --- Broadcasting -----------------------------------------------------------------------------------------------------
def broadcast(attempt: Attempt) -> None:
    """Send stored bytes; doing it twice is harmless, the nonce and the hash are the same."""
    error = ""
    try:
        chain().broadcast(bytes(attempt.raw))
    except ChainError as problem:
        error = str(problem)
        log.warning("broadcast of %s: %s", attempt.hash, error)
    Attempt.objects.filter(pk=attempt.pk).update(broadcasts=F("broadcasts") + 1, error=error)


# --- Confirming -------------------------------------------------------------------------------------------------------
def confirm(on: Chain) -> None:
    """See which sent transactions are final: a receipt at or below the finalized block, with that block's own hash."""
    final = on.finalized()
    for attempt in Attempt.objects.filter(tx__state=State.SENT).select_related("tx"):
        with jobs.apart(attempt):
            _confirm(attempt, final, on)
    for tx in ChainTx.objects.filter(state=State.REVERTED):
        with jobs.apart(tx):
            if not tx.error or actions.is_due(tx):
                _reverted(tx, on)
    for sender in ChainTx.objects.exclude(sender="").order_by().values_list("sender", flat=True).distinct():
        with jobs.apart(sender):
            _notice_foreign(sender, on)


def _confirm(attempt: Attempt, final: Block, on: Chain) -> None:
    receipt = on.receipt(attempt.hash)
    if receipt is None or receipt.block > final.number or on.block(receipt.block).hash != receipt.block_hash:
        return
    state = State.FINAL if receipt.ok else State.REVERTED
    fields = {"block": receipt.block, "gas_used": receipt.gas_used, "fee_gwei": receipt.fee_gwei}
    with transaction.atomic():
        if not ChainTx.objects.filter(pk=attempt.tx_id, state=State.SENT).update(state=state, final_at=timezone.now()):
            return
        Attempt.objects.filter(pk=attempt.pk).update(**fields)


def _reverted(tx: ChainTx, on: Chain) -> None:
    """It was right when it was signed, and is not any more. Asking again tells why.

    As long as no reason is written down, nothing has come of it: the next `confirm` asks again. So it does as long as the
    end of a payment is due: the reason may have passed, and another have come for which another decision is right.
    """
    why = _refusal(tx, on)
    reason = "it would go through now" if why is None else str(why) or "refused"
    with transaction.atomic():
        done = why is not None and actions.reconsider(tx, why)
        if not done and not tx.error:
            alarm(Kind.REVERTED, f"{tx} in {tx.hash}", tx.case)
        if reason != tx.error:
            ChainTx.objects.filter(pk=tx.pk).update(error=reason)


def _refusal(tx: ChainTx, on: Chain) -> Reverted | None:
    try:
        on.estimate(_call(tx), tx.sender)
    except Reverted as error:
        return error
    return None


def _notice_foreign(sender: str, on: Chain) -> None:
    """Nonces that are spent in a final block, but not by us: the key is in other hands. The sender halts.

    What we had signed with such a nonce can never happen: it becomes ready again, for another nonce, when an admin has
    cleared the alarm.
    """
    spent = on.final_nonce(sender)
    ours = ChainTx.objects.filter(sender=sender)
    following = _following_nonce(sender)
    unknown = range(spent if following is None else following, spent)
    robbed = [tx for tx in ours.filter(state=State.SENT, nonce__lt=spent) if not _mined(tx, on)]
    if not unknown and not robbed:
        return
    with transaction.atomic():
        _lock(sender)
        taken = [tx.nonce for tx in robbed if _give_up_nonce(tx)]
        _note_foreign(sender, [*taken, *unknown])
        text = f"{sender}: somebody else spent nonce {', '.join(map(str, [*taken, *unknown]))} with this key"
        alarm(Kind.FOREIGN_NONCE, text, halts=sender)


def _mined(tx: ChainTx, on: Chain) -> bool:
    return any(on.receipt(attempt.hash) for attempt in tx.attempts.all())


def _give_up_nonce(tx: ChainTx) -> bool:
    lost = ChainTx.objects.filter(pk=tx.pk, state=State.SENT)
    return bool(lost.update(state=State.READY, nonce=None, error=f"somebody else spent nonce {tx.nonce}"))


def _note_foreign(sender: str, nonces: list[int]) -> None:
    """Rows that say so: the audit shows them, and the next nonce of ours comes after them."""
    ChainTx.objects.bulk_create(
        ChainTx(
            key=f"foreign:{sender}:{nonce}",
            verb="unknown",
            case=None,
            sender=sender,
            nonce=nonce,
            state=State.FOREIGN,
            final_at=timezone.now(),
        )
        for nonce in nonces
    )
