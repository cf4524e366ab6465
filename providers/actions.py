"""Every change of a provider's standing is a verb here."""

import hashlib
import json
import re
import time
from collections.abc import Collection, Iterable
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import cast
from urllib.parse import urlsplit
from uuid import UUID, uuid4

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import Prefetch, QuerySet
from django.utils import timezone

from accounts import actions as accounts
from accounts.models import ApiKey, User
from contracts.chain import Call
from contracts.keys import signer
from dmlsite import jobs, live
from dmlsite.errors import Conflict, Forbidden, Invalid, Missing
from dmlworker import protocol
from ledger import actions as ledger
from ledger import alarms
from ledger.alarms import Kind, alarm
from ledger.gateway import chain
from ledger.models import ChainEvent, Sighting
from providers.models import Accusation, Answer, Connection, Provider, Standing, StandingEvent

USER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{2,29}")

MAX_ANSWERS = 20
"""Of one provider to one accusation."""

DEPOSIT_PATIENCE = timedelta(hours=1)
"""A deposit that no block has had for so long after it was prepared was declined in the wallet."""

FORGOTTEN = timedelta(days=1)
"""A connection that was not heard from for so long is no longer shown."""

BY_DEPOSIT = {
    "Registered": (Standing.ACTIVE, "deposit paid"),
    "ExitRequested": (Standing.EXITING, "asked to leave"),
    "Withdrawn": (Standing.LEFT, "deposit withdrawn"),
    "Banned": (Standing.BANNED, "banned on the chain"),
}
"""What the latest event about a wallet's deposit makes of its owner, and why."""


def check_user_name(name: str) -> None:
    """Raises Invalid with a reason if nobody could join by this name."""
    if not USER_NAME.fullmatch(name):
        raise Invalid("A user name has 3 to 30 letters, digits, - or _, and starts with a letter or digit.")
    if Provider.objects.filter(user_name__iexact=name).exists():
        raise Invalid("This user name is taken.")


def join(user: User, user_name: str) -> Provider:
    """Reserve a user name. The provider works only after the deposit's event is final."""
    if Provider.objects.filter(user=user).exists():
        raise Conflict("You have joined already.")
    check_user_name(user_name)
    try:
        with transaction.atomic():
            User.objects.filter(pk=user.pk).update(is_provider=True)
            return Provider.objects.create(user=user, user_name=user_name)
    except IntegrityError:
        raise Invalid("This user name is taken.") from None


def deposit_call(provider: Provider, wallet: str) -> Call:
    """The transaction that the provider's wallet signs: the exact deposit, naming this provider.

    The wallet is remembered: somebody who copies the name out of the pool, to put their own wallet in its place,
    deposits from another one.
    """
    if provider.standing not in (Standing.PENDING, Standing.LEFT):
        raise Conflict(f"No deposit is due: you are {provider.get_standing_display()}.")
    if _has_open_case(provider):
        raise Conflict("An accusation against you is open. You can join again when it was lifted or has lapsed.")
    if _is_anothers(wallet, provider):
        raise Conflict("This wallet belongs to another provider. Please choose another account in your wallet.")
    call = chain().register_call(provider.pk.bytes)
    Provider.objects.filter(pk=provider.pk).update(deposit_from=wallet, deposit_asked=timezone.now())
    return call


def deposit_may_come(provider: Provider) -> bool:
    """Whether a deposit may be on its way: its transaction was prepared lately, and what the wallet did with it nobody tells us;
    or it is in a block that is not final yet."""
    lately = provider.deposit_asked and provider.deposit_asked > timezone.now() - DEPOSIT_PATIENCE
    return bool(lately) or Sighting.objects.filter(name="Registered", case=provider.pk).exists()


def _is_anothers(wallet: str, provider: Provider) -> bool:
    return Provider.objects.filter(wallet=wallet).exclude(pk=provider.pk).exists()


def _has_open_case(provider: Provider) -> bool:
    return provider.accusations.filter(state=Accusation.State.OPEN).exists()


def exit_call(provider: Provider) -> Call:
    """Ask to leave; the deposit can be withdrawn after the unbonding time."""
    if provider.standing != Standing.ACTIVE:
        raise Conflict("Only an active provider can leave.")
    return chain().exit_call()


def withdraw_call(provider: Provider) -> Call:
    if provider.standing != Standing.EXITING:
        raise Conflict("Ask to leave first.")
    return chain().withdraw_call()


def unlocks(provider: Provider) -> datetime | None:
    """From when on a leaving provider can withdraw its deposit, as the contract's own event says."""
    if provider.standing != Standing.EXITING:
        return None
    left = ChainEvent.objects.filter(name="ExitRequested", args__provider=provider.wallet).last()
    return datetime.fromtimestamp(left.args["unlock_at"], UTC) if left else None


def change_standing(
    provider: Provider, new: str, reason: str, *, actor: str = "platform", case: UUID | None = None, **fields: object
) -> bool:
    """The one writer of a provider's standing. False if it was there already, or is banned: a ban is for good."""
    old = provider.standing
    if new == old or old == Standing.BANNED:
        return False
    with transaction.atomic():
        if not Provider.objects.filter(pk=provider.pk, standing=old).update(standing=new, **fields):
            raise Conflict("Somebody else changed this provider a moment ago.")
        StandingEvent.objects.create(provider=provider, old=old, new=new, reason=reason, actor=actor, case=case)
        live.changed(live.provider_group(provider.pk))
    provider.refresh_from_db()
    return True


def event_seen(event: ChainEvent) -> None:
    """Follow what a final event of the escrow says about a provider. Running twice changes nothing."""
    verb = {
        "Registered": _registered,
        "ExitRequested": _deposit_moved,
        "Withdrawn": _deposit_moved,
        "Accused": _accused,
        "Acquitted": _acquitted,
        "Banned": _banned,
    }.get(event.name)
    if verb:
        verb(event)


def _registered(event: ChainEvent) -> None:
    """Only a deposit that names the provider, from the wallet it named, makes that wallet theirs."""
    provider = Provider.objects.filter(pk=event.case).first()
    if provider is None:
        return
    wallet, stake = event.args["provider"], event.args["stake"]
    if wallet != provider.wallet and not _becomes_theirs(wallet, provider):
        alarm(Kind.STRAY_DEPOSIT, f"{wallet} deposited for {provider}, whose wallet it is not", case=provider.pk)
        return
    if wallet != provider.wallet:
        provider.streak = 0  # trust is the wallet's: a new one begins anew
    provider.wallet, provider.deposit_gwei, provider.deposit_tx = wallet, stake, event.tx
    provider.save(update_fields=["wallet", "deposit_gwei", "deposit_tx", "streak"])
    _follow_deposit(provider)


def _becomes_theirs(wallet: str, provider: Provider) -> bool:
    """Never while another wallet of theirs has a deposit or a case: that would be forgotten with it."""
    free = provider.standing in (Standing.PENDING, Standing.LEFT) and not _has_open_case(provider)
    return free and wallet == provider.deposit_from and not _is_anothers(wallet, provider)


def _deposit_moved(event: ChainEvent) -> None:
    if provider := _by_wallet(event):
        _follow_deposit(provider)


def _follow_deposit(provider: Provider, reason: str = "", actor: str = "platform", case: UUID | None = None) -> None:
    """Give a provider the standing of its deposit, or ACCUSED as long as an accusation is open and there is a deposit.

    What counts is the latest event, not the one at hand: jobs follow events in any order.
    """
    last = ChainEvent.objects.filter(name__in=BY_DEPOSIT, args__provider=provider.wallet).last()
    standing, why = BY_DEPOSIT[last.name if last else "Withdrawn"]
    if last and standing == Standing.BANNED:
        return _banned(last)
    if standing == Standing.LEFT:
        Provider.objects.filter(pk=provider.pk).update(deposit_gwei=0)
    elif _has_open_case(provider):
        standing = Standing.ACCUSED
    change_standing(provider, standing, reason or why, actor=actor, case=case)


def _by_wallet(event: ChainEvent) -> Provider | None:
    return Provider.objects.filter(wallet=event.args["provider"]).first()


def accuse(
    cheats: Iterable[Provider],
    honest: Iterable[Provider],
    reason: str,
    *,
    evidence: dict[str, object],
    case: UUID | None = None,
    actor: str = "platform",
    on_chain: bool = True,
) -> Accusation:
    """Accuse providers: no more work from now on, the ban after the challenge time.

    `case` is the ticket's id when a ticket failed; then the chain is told by the ticket's own refund
    (`on_chain=False`).
    """
    cheats = list(cheats)
    wallets = sorted(provider.wallet for provider in honest if provider.wallet)
    with transaction.atomic():
        found = Accusation.objects.create(id=case or uuid4(), honest=wallets, reason=reason, evidence=evidence)
        found.cheats.set(cheats)
        for provider in _locked_cheats(found):
            change_standing(provider, Standing.ACCUSED, reason, actor=actor, case=found.pk)
        if on_chain:
            ledger.accuse(found.pk, wallets_of(found), wallets)
    return found


def _locked_cheats(accusation: Accusation) -> QuerySet[Provider]:
    """The accused as they are now. Until commit nobody else accuses or clears them."""
    return accusation.cheats.select_for_update(of=("self",)).order_by("pk")


def wallets_of(accusation: Accusation) -> list[str]:
    return sorted(wallet for wallet in accusation.cheats.values_list("wallet", flat=True) if wallet)


def _accused(event: ChainEvent) -> None:
    """The accusation stands on the chain: plan the ban for when the challenge time is over."""
    accusation = Accusation.objects.filter(pk=event.case).first() if event.case else None
    if accusation is None:
        text = f"{', '.join(event.args['cheats'])} stand accused in {event.tx}; the guardian's key can acquit"
        alarm(Kind.UNKNOWN_ACCUSATION, text, event.case)
        return
    times = {name: datetime.fromtimestamp(event.args[name], UTC) for name in ("executable_at", "lapses_at")}
    if _open(accusation).update(**times):
        ledger.execute_ban(accusation.pk, wallets_of(accusation), accusation.honest)


def _open(accusation: Accusation) -> QuerySet[Accusation]:
    """For a conditional UPDATE: who closes an accusation waits for it, and sees what was planned."""
    return Accusation.objects.filter(pk=accusation.pk, state=Accusation.State.OPEN)


def cases_of(provider: Provider) -> QuerySet[Accusation]:
    """Those against a provider, the newest first. Others' do not exist for it."""
    return provider.accusations.prefetch_related(Prefetch("answers", Answer.objects.filter(provider=provider)))


def answer(provider: Provider, case: UUID, text: str) -> Answer:
    """What an accused provider says to a case that is open; the guardian is told. More than once, if there is more to say."""
    with transaction.atomic():
        found = provider.accusations.select_for_update(of=("self",)).filter(pk=case).first()
        if found is None:
            raise Missing("There is no such accusation against you.")
        if found.state != Accusation.State.OPEN:
            raise Conflict("This accusation is closed.")
        if found.answers.filter(provider=provider).count() >= MAX_ANSWERS:
            raise Conflict(f"You have answered {MAX_ANSWERS} times; the guardian has all of it.")
        said = Answer.objects.create(accusation=found, provider=provider, text=text)
        alarms.add(Kind.ANSWERED, f"{provider} answers the accusation: {text[:200]}", found.pk)
    return said


def evidence_for(provider: Provider, accusation: Accusation) -> tuple[list[dict[str, object]], dict[str, object]]:
    """(replays of its own work, the rest) of what is held against a provider: what is about others is not shown, nor who of
    the admins decided."""
    replays = [each for each in accusation.evidence.get("replays", []) if each.get("provider") == provider.user_name]
    rest = {name: value for name, value in accusation.evidence.items() if name not in ("replays", "decided_by")}
    return replays, rest


def evidence_hash(accusation: Accusation) -> str:
    """The SHA-256 of the evidence as canonical JSON, to be shown to everybody: it can't be changed afterwards unnoticed."""
    text = json.dumps(accusation.evidence, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def lift(accusation: Accusation, reason: str, actor: str) -> None:
    """An admin's veto within the challenge time."""
    with transaction.atomic():
        if not _close(accusation, Accusation.State.LIFTED, reason, actor):
            raise Conflict("This accusation is closed.")
        ledger.acquit(accusation.pk)


def _acquitted(event: ChainEvent) -> None:
    if accusation := Accusation.objects.filter(pk=event.case).first():
        _close(accusation, Accusation.State.LIFTED, "acquitted on the chain")


def _close(accusation: Accusation, state: Accusation.State, reason: str, actor: str = "platform") -> bool:
    """End an accusation without a ban: who has no other one is what the deposit says. False if it was closed before."""
    with transaction.atomic():
        if not _open(accusation).update(state=state):
            return False
        ledger.drop_ban(accusation.pk, f"the accusation is {state.label}")
        for provider in _locked_cheats(accusation):
            _follow_deposit(provider, reason, actor, accusation.pk)
    return True


def close_overdue() -> None:
    """Close the accusations whose time is over: the chain frees the accused by time alone, and no event tells. Swept.

    The final block is asked: where that says so, no ban can come any more. Young accusations cost no question.
    """
    overdue = Accusation.objects.filter(state=Accusation.State.OPEN, lapses_at__lte=timezone.now())
    if not overdue:
        return
    on = chain()
    final = on.finalized().number
    for accusation in overdue:
        with jobs.apart(accusation):
            _close_overdue(accusation, on.accusation(accusation.pk, at=final).state)


def _close_overdue(accusation: Accusation, state: str) -> None:
    if state == "Lapsed":
        _lapse(accusation)
    elif state == "Executed":  # and all were banned before, by another case: only a first ban has an event
        _open(accusation).update(state=Accusation.State.EXECUTED)


def _lapse(accusation: Accusation) -> None:
    with transaction.atomic():
        if _close(accusation, Accusation.State.LAPSED, "the accusation lapsed"):
            names = ", ".join(accusation.cheats.values_list("user_name", flat=True))
            alarm(Kind.LAPSED, f"{accusation} against {names} was not executed in time", accusation.pk)


def _banned(event: ChainEvent) -> None:
    if provider := _by_wallet(event):
        Accusation.objects.filter(pk=event.case).update(state=Accusation.State.EXECUTED)
        reason = Accusation.objects.filter(pk=event.case).values_list("reason", flat=True).first()
        change_standing(provider, Standing.BANNED, reason or "banned on the chain", case=event.case, deposit_gwei=0)
        ApiKey.objects.filter(user=provider.user, use=ApiKey.Use.WORKER, revoked=None).update(revoked=timezone.now())


def issue_key(provider: Provider, name: str = "worker") -> str:
    """A new API key for a worker, shown once."""
    if provider.standing != Standing.ACTIVE:
        raise Conflict("You get a key when your deposit is final.")
    accounts.check_keys(provider.user)
    return ApiKey.issue(provider.user, name)


def worker_of(token: str) -> Provider:
    """The provider whose worker shows this: an API key, or a sign-in that the provider's wallet signed. Raises Forbidden
    with the reason."""
    if token.startswith("wallet:"):
        return _signed_in(token)
    found = ApiKey.valid(token).select_related("user__provider").first()
    if found is None or not hasattr(found.user, "provider"):
        raise Forbidden("This key is not known, or it was revoked.")
    ApiKey.touch(found)
    return cast(Provider, found.user.provider)


def still_good(tokens: Collection[str]) -> set[str]:
    """Which of the tokens that workers were let in by are not revoked meanwhile; a wallet's sign-in is not asked again: it runs out, and was
    good when it was shown. The keys count as used."""
    wallets = {token for token in tokens if token.startswith("wallet:")}
    return wallets | ApiKey.all_valid(set(tokens) - wallets)


def _signed_in(token: str) -> Provider:
    """See `dmlworker.protocol.sign_in_text`."""
    wallet, expires = _signer(token, urlsplit(settings.SITE_URL).netloc)
    left = expires - time.time()
    if not 0 < left <= protocol.SIGNED_SECONDS + 60:
        raise Forbidden("This sign-in has run out; is the worker's clock right?")
    provider = Provider.objects.filter(wallet=wallet, user__is_active=True).first()
    if provider is None:
        raise Forbidden(f"No provider has joined with {wallet}.")
    return provider


@lru_cache(maxsize=1024)
def _signer(token: str, site: str) -> tuple[str, int]:
    """(wallet, expires) of a sign-in whose signature is right. Kept: to recover a signer takes milliseconds."""
    _, wallet, expires, signature = [*token.split(":"), "", "", ""][:4]
    if not expires.isdecimal() or len(expires) > 12 or len(wallet) != 42 or len(signature) != 132:
        raise Forbidden("This is no sign-in by a wallet.")
    if signer(protocol.sign_in_text(site, wallet, int(expires)), signature) != wallet:
        raise Forbidden(f"This sign-in is not signed by {wallet} for {site}.")
    return wallet, int(expires)


def connected(provider: Provider, channel: str, device: str, session: str = "") -> None:
    """A worker is here. Raises Conflict if its provider has WORKERS_PER_PROVIDER online already."""
    others = Connection.objects.online().filter(provider=provider).exclude(channel=channel)
    if others.count() >= settings.WORKERS_PER_PROVIDER:
        raise Conflict(f"{settings.WORKERS_PER_PROVIDER} of your workers are online already.")
    Connection.objects.update_or_create(
        channel=channel,
        defaults={"provider": provider, "device": device[:200], "session": session, "seen": timezone.now()},
    )
    jobs.enqueue("training.tasks.start_waiting")


def heard(channels: Collection[str]) -> None:
    Connection.objects.filter(channel__in=channels).update(seen=timezone.now())


def disconnected(channel: str) -> None:
    Connection.objects.filter(channel=channel).delete()


def forget_connections() -> None:
    """Rows of sockets whose web process died: nobody said goodbye."""
    Connection.objects.filter(seen__lt=timezone.now() - FORGOTTEN).delete()


def available(attested: bool = False) -> QuerySet[Provider]:
    """Providers in standing with a worker online, or with an attested one."""
    online = Connection.objects.online(attested)
    return Provider.objects.filter(standing=Standing.ACTIVE, connections__in=online).distinct()
