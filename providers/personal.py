"""What is known about a provider (accounts/personal.py)."""

from typing import Any

from accounts.models import User
from ledger.models import Transfer
from providers import actions
from providers.models import Connection, Provider, Standing


def refusal(user: User) -> str:
    provider = Provider.objects.filter(user=user).first()
    if provider is None or provider.standing == Standing.BANNED:
        return ""
    if provider.standing not in (Standing.PENDING, Standing.LEFT):
        return "Your deposit as a provider is locked: leave, and withdraw it, first."
    if actions.deposit_may_come(provider):
        return "Your deposit as a provider may be on its way. If you declined it in your wallet, come back in an hour."
    return ""


def export(user: User) -> dict[str, Any] | None:
    provider = Provider.objects.filter(user=user).first()
    if provider is None:
        return None
    paid = Transfer.objects.filter(credit=f"provider:{provider.wallet}") if provider.wallet else Transfer.objects.none()
    return {
        "user_name": provider.user_name,
        "wallet": provider.wallet,
        "standing": provider.standing,
        "deposit_gwei": provider.deposit_gwei,
        "audits_passed_in_a_row": provider.streak,
        "joined": provider.created,
        "history": list(provider.history.values("old", "new", "reason", "at")),
        "cases": list(provider.accusations.values("id", "reason", "state", "created")),
        "attestations": list(provider.attestations.values("asked", "state", "measurement__value", "chip", "expires")),
        "answers": list(provider.answers.values("accusation_id", "text", "at")),
        "transfers": list(paid.values("kind", "amount", "case", "created")),
    }


def erase(user: User) -> None:
    """The name goes. The wallet, its standing and cases stay: a ban is for good, and payments name wallets. A deposit that comes
    after all is nobody's, and raises an alarm."""
    for provider in Provider.objects.filter(user=user):
        Connection.objects.filter(provider=provider).delete()
        provider.attestations.all().delete()
        Provider.objects.filter(pk=provider.pk).update(user_name=f"gone-{provider.pk.hex[:12]}", deposit_from="")
