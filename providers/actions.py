"""Every change of a provider's standing is a verb here."""

import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

from django.db import IntegrityError, transaction
from django.db.models import QuerySet
from django.utils import timezone

from accounts.models import ApiKey, User
from contracts.chain import Call
from dmlsite import jobs, live
from dmlsite.errors import Conflict, Forbidden, Invalid
from ledger import actions as ledger
from ledger.alarms import Kind, alarm
from ledger.gateway import chain
from ledger.models import ChainEvent
from providers.models import Accusation, Connection, Provider, Standing, StandingEvent

LAPSE_GRACE = timedelta(minutes=10)
USER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{2,29}")


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

    The wallet is remembered: somebody who copies the name out of the pool, to put their own wallet in its place, deposits
    from another one.
    """
    if provider.standing not in (Standing.PENDING, Standing.LEFT):
        raise Conflict(f"No deposit is due: you are {provider.get_standing_display()}.")
    if _is_anothers(wallet, provider):
        raise Conflict("This wallet belongs to another provider. Please choose another account in your wallet.")
    Provider.objects.filter(pk=provider.pk).update(deposit_from=wallet)
    return chain().register_call(provider.pk.bytes)


def _is_anothers(wallet: str, provider: Provider) -> bool:
    return Provider.objects.filter(wallet=wallet).exclude(pk=provider.pk).exists()


def exit_call(provider: Provider) -> Call:
    """Ask to leave; the deposit can be withdrawn after the unbonding time."""
    if provider.standing != Standing.ACTIVE:
        raise Conflict("Only an active provider can leave.")
    return chain().exit_call()


def withdraw_call(provider: Provider) -> Call:
    if provider.standing != Standing.EXITING:
        raise Conflict("Ask to leave first.")
    return chain().withdraw_call()


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
        "ExitRequested": _exit_requested,
        "Withdrawn": _withdrawn,
        "Accused": _accused,
        "Acquitted": _acquitted,
        "Banned": _banned,
    }.get(event.name)
    if verb:
        verb(event)


def _registered(event: ChainEvent) -> None:
    """Only a deposit that names the provider, from the wallet it named, makes that wallet theirs."""
    provider = Provider.objects.filter(pk=event.case).first()
    if provider is None or provider.standing not in (Standing.PENDING, Standing.LEFT):
        return
    wallet, stake = event.args["provider"], event.args["stake"]
    if wallet != provider.deposit_from or _is_anothers(wallet, provider):
        alarm(Kind.STRAY_DEPOSIT, f"{wallet} deposited for {provider}, whose wallet it is not", case=provider.pk)
        return
    fields = {"wallet": wallet, "deposit_gwei": stake, "deposit_tx": event.tx}
    change_standing(provider, Standing.ACTIVE, "deposit paid", **fields)


def _exit_requested(event: ChainEvent) -> None:
    if (provider := _by_wallet(event)) and provider.standing == Standing.ACTIVE:
        change_standing(provider, Standing.EXITING, "asked to leave")


def _withdrawn(event: ChainEvent) -> None:
    """Also of one that is accused here: the chain lets nobody withdraw whom an accusation still holds."""
    if (provider := _by_wallet(event)) and provider.standing in (Standing.ACTIVE, Standing.EXITING, Standing.ACCUSED):
        change_standing(provider, Standing.LEFT, "deposit withdrawn", deposit_gwei=0)


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

    `case` is the ticket's id when a ticket failed; then the chain is told by the ticket's own refund (`on_chain=False`).
    """
    cheats = list(cheats)
    wallets = sorted(provider.wallet for provider in honest if provider.wallet)
    with transaction.atomic():
        found = Accusation.objects.create(id=case or uuid4(), honest=wallets, reason=reason, evidence=evidence)
        found.cheats.set(cheats)
        for provider in cheats:
            change_standing(provider, Standing.ACCUSED, reason, actor=actor, case=found.pk)
        if on_chain:
            ledger.accuse(found.pk, wallets_of(found), wallets)
    return found


def wallets_of(accusation: Accusation) -> list[str]:
    return sorted(wallet for wallet in accusation.cheats.values_list("wallet", flat=True) if wallet)


def _accused(event: ChainEvent) -> None:
    """The accusation stands on the chain: plan the ban for when the challenge time is over."""
    accusation = Accusation.objects.filter(pk=event.case).first() if event.case else None
    if accusation is None:
        text = f"{', '.join(event.args['cheats'])} stand accused in {event.tx}; the guardian's key can acquit"
        alarm(Kind.UNKNOWN_ACCUSATION, text, event.case)
    elif accusation.state == Accusation.State.OPEN:
        times = {name: datetime.fromtimestamp(event.args[name], UTC) for name in ("executable_at", "lapses_at")}
        Accusation.objects.filter(pk=accusation.pk).update(**times)
        ledger.execute_ban(accusation.pk, wallets_of(accusation), accusation.honest)


def lift(accusation: Accusation, reason: str, actor: str) -> None:
    """An admin's veto within the challenge time."""
    if not _close(accusation, Accusation.State.LIFTED, reason, actor):
        raise Conflict("This accusation is closed.")
    ledger.acquit(accusation.pk)


def _acquitted(event: ChainEvent) -> None:
    if accusation := Accusation.objects.filter(pk=event.case).first():
        _close(accusation, Accusation.State.LIFTED, "acquitted on the chain")


def lapse_overdue() -> None:
    """An accusation that was not executed in time frees its providers by itself, and no event tells. Swept.

    The grace is for a ban that was mined in time and whose event is not final yet.
    """
    late = Accusation.objects.filter(state=Accusation.State.OPEN, lapses_at__lt=timezone.now() - LAPSE_GRACE)
    for accusation in late:
        if chain().accusation(accusation.pk).state in ("Open", "Lapsed"):
            ledger.drop_ban(accusation.pk, "the accusation lapsed")
            if _close(accusation, Accusation.State.LAPSED, "the accusation lapsed"):
                alarm(
                    Kind.LAPSED, f"{accusation} against {', '.join(map(str, accusation.cheats.all()))}", accusation.pk
                )


def _close(accusation: Accusation, state: str, reason: str, actor: str = "platform") -> bool:
    """End an accusation without a ban: who has no other one has the standing again that the chain gives. False if it was
    closed before."""
    before = {provider: _standing_on_chain(provider) for provider in accusation.cheats.all()}
    with transaction.atomic():
        if not Accusation.objects.filter(pk=accusation.pk, state=Accusation.State.OPEN).update(state=state):
            return False
        for provider, standing in before.items():
            others = provider.accusations.filter(state=Accusation.State.OPEN)
            if provider.standing == Standing.ACCUSED and not others.exists():
                change_standing(provider, standing, reason, actor=actor, case=accusation.pk)
    return True


def _standing_on_chain(provider: Provider) -> Standing:
    """What a provider is by its deposit: it may have asked to leave before it was accused, or since."""
    on = chain()
    name = on.provider_standing(provider.wallet, at=on.finalized().number).name if provider.wallet else "None"
    return {"Active": Standing.ACTIVE, "Exiting": Standing.EXITING, "Banned": Standing.BANNED}.get(name, Standing.LEFT)


def _banned(event: ChainEvent) -> None:
    if provider := _by_wallet(event):
        Accusation.objects.filter(pk=event.case).update(state=Accusation.State.EXECUTED)
        reason = Accusation.objects.filter(pk=event.case).values_list("reason", flat=True).first()
        change_standing(provider, Standing.BANNED, reason or "banned on the chain", case=event.case, deposit_gwei=0)
        ApiKey.objects.filter(user=provider.user, revoked=None).update(revoked=timezone.now())


def issue_key(provider: Provider, name: str = "worker") -> str:
    """A new API key for a worker, shown once."""
    if provider.standing != Standing.ACTIVE:
        raise Conflict("You get a key when your deposit is final.")
    return ApiKey.issue(provider.user, name)


def worker_of(key: str) -> Provider:
    """The provider whose worker shows this key. Raises Forbidden with the reason."""
    user = ApiKey.owner(key)
    provider = Provider.objects.filter(user=user).first() if user else None
    if provider is None:
        raise Forbidden("This key is not known, or it was revoked.")
    return provider


def connected(provider: Provider, channel: str, device: str) -> None:
    Connection.objects.update_or_create(
        channel=channel, defaults={"provider": provider, "device": device[:200], "seen": timezone.now()}
    )
    jobs.enqueue("training.tasks.start_waiting")


def heard(channel: str) -> None:
    Connection.objects.filter(channel=channel).update(seen=timezone.now())


def disconnected(channel: str) -> None:
    Connection.objects.filter(channel=channel).delete()


def available() -> QuerySet[Provider]:
    """Providers in standing with a worker online."""
    return Provider.objects.filter(standing=Standing.ACTIVE, connections__in=Connection.objects.online()).distinct()
