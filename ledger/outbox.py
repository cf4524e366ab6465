"""Sending: sign and store first, then broadcast; after that an error means unknown, never failed.

The chain is asked before the lock is taken; under the lock there is only: take the nonce, sign, store.
"""

import logging

from django.conf import settings
from django.db import connection, transaction
from django.db.models import F, Max, Q
from django.utils import timezone

from contracts.chain import GAS_MARGIN, Block, Call, Chain, ChainError, Fees, Key, Reverted, Signed
from ledger import actions
from ledger.gateway import chain, key
from ledger.models import Attempt, ChainTx

log = logging.getLogger(__name__)
State = ChainTx.State


def due() -> list[str]:
    """Intents that are to be sent, or sent again because the chain has not taken them yet."""
    ripe = Q(not_before=None) | Q(not_before__lte=timezone.now())
    ready = ChainTx.objects.filter(ripe, state__in=[State.READY, State.SENT]).order_by("created")
    return [str(pk) for pk in ready.values_list("pk", flat=True)]


def send(tx: ChainTx) -> None:
    """Bring an intent one step on: sign it if it was not, then broadcast the stored bytes."""
    if tx.not_before and tx.not_before > timezone.now():
        return
    if tx.state == State.READY:
        try:
            _sign(tx, chain())
        except Reverted as error:
            _refused(tx, error)
            return
    elif tx.state == State.SENT and (last := tx.attempts.last()) and is_stuck(last):
        bump(last, key(tx.role), chain())
    attempt = tx.attempts.last()
    if attempt and tx.state in (State.READY, State.SENT):
        broadcast(attempt)


def _refused(tx: ChainTx, error: Reverted) -> None:
    """The chain would refuse it now. It may be early (its predecessor not mined yet), so it stays ready; we say so."""
    ChainTx.objects.filter(pk=tx.pk).update(error=str(error))
    if (timezone.now() - tx.created).total_seconds() > 60:
        actions.alarm("transaction refused", f"{tx}: {error}", tx.case)


def _sign(tx: ChainTx, on: Chain) -> None:
    """Take the next nonce and store the signed bytes, in one short transaction that serialises on the sender."""
    private = key(tx.role)
    sender = private.address
    call = Call(to=tx.to, data=tx.data, value_gwei=tx.value_gwei)
    gas, fees, confirmed = (
        int(on.estimate(call, sender) * GAS_MARGIN),
        on.suggest_fees(settings.CHAIN_TIP_GWEI),
        on.confirmed_nonce(sender),
    )
    with transaction.atomic():
        _lock(sender)
        fresh = ChainTx.objects.select_for_update().get(pk=tx.pk)
        if fresh.state != State.READY:
            return
        last = ChainTx.objects.filter(sender=sender).aggregate(top=Max("nonce"))["top"]
        nonce = max(confirmed, -1 if last is None else last + 1)
        signed = on.sign(call, private, nonce, fees=fees, gas=gas)
        _store(fresh, signed)
        ChainTx.objects.filter(pk=tx.pk).update(state=State.SENT, sender=sender, nonce=nonce, error="")


def _store(tx: ChainTx, signed: Signed) -> None:
    Attempt.objects.create(
        tx=tx,
        raw=signed.raw,
        hash=signed.hash,
        gas=signed.gas,
        max_fee_gwei=signed.max_fee_gwei,
        tip_gwei=signed.tip_gwei,
    )


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
        actions.alarm("fee cap reached", f"{tx} is not taken at {attempt.max_fee_gwei} gwei", tx.case)
        return
    call = Call(to=tx.to, data=tx.data, value_gwei=tx.value_gwei)
    signed = on.sign(call, private, tx.nonce, fees=fees, gas=attempt.gas)
    with transaction.atomic():
        _lock(private.address)
        if tx.attempts.last() == attempt and ChainTx.objects.filter(pk=tx.pk, state=State.SENT).exists():
            _store(tx, signed)


def _lock(sender: str) -> None:
    """One signer at a time per key, whatever the number of job processes."""
    with connection.cursor() as cursor:
        cursor.execute("select pg_advisory_xact_lock(hashtext(%s))", [f"sender:{sender.lower()}"])


def broadcast(attempt: Attempt) -> None:
    """Send stored bytes; doing it twice is harmless, the nonce and the hash are the same."""
    error = ""
    try:
        chain().broadcast(bytes(attempt.raw))
    except ChainError as problem:
        error = str(problem)
        log.warning("broadcast of %s: %s", attempt.hash, error)
    Attempt.objects.filter(pk=attempt.pk).update(broadcasts=F("broadcasts") + 1, error=error)


def confirm(on: Chain) -> None:
    """See which sent transactions are final: a receipt at or below the finalized block, with that block's own hash."""
    final = on.finalized()
    for attempt in Attempt.objects.filter(tx__state=State.SENT).select_related("tx"):
        _confirm(attempt, final, on)


def _confirm(attempt: Attempt, final: Block, on: Chain) -> None:
    receipt = on.receipt(attempt.hash)
    if receipt is None or receipt.block > final.number or on.block(receipt.block).hash != receipt.block_hash:
        return
    state = State.FINAL if receipt.ok else State.REVERTED
    with transaction.atomic():
        if not ChainTx.objects.filter(pk=attempt.tx_id, state=State.SENT).update(state=state, final_at=timezone.now()):
            return
        fields = {"block": receipt.block, "gas_used": receipt.gas_used, "fee_gwei": receipt.fee_gwei}
        Attempt.objects.filter(pk=attempt.pk).update(**fields)
        if not receipt.ok:
            actions.alarm("transaction reverted", f"{attempt.tx} in {attempt.hash}", attempt.tx.case)
