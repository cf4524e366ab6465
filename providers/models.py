"""Node providers, their deposit and standing, and which of their workers are connected."""

import uuid
from datetime import timedelta

from django.conf import settings
from django.db import models
from django.db.models.functions import Lower
from django.utils import timezone


class Standing(models.TextChoices):
    PENDING = "pending", "waiting for the deposit"
    ACTIVE = "active", "active"
    EXITING = "exiting", "leaving"
    LEFT = "left", "left"
    ACCUSED = "accused", "accused"
    BANNED = "banned", "banned"


class Provider(models.Model):
    """A person who lends computers. `id` is the reference that the deposit's transaction names."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    user = models.OneToOneField(settings.AUTH_USER_MODEL, models.PROTECT, related_name="provider")
    user_name = models.CharField(max_length=30)
    wallet = models.CharField(max_length=42, null=True, blank=True, unique=True, help_text="Set by the deposit's event")
    deposit_from = models.CharField(
        max_length=42, blank=True, help_text="The wallet that said it would pay the deposit"
    )
    deposit_asked = models.DateTimeField(null=True, help_text="When its transaction was last prepared for that wallet")
    standing = models.CharField(max_length=8, choices=Standing.choices, default=Standing.PENDING)
    deposit_gwei = models.BigIntegerField(default=0)
    deposit_tx = models.CharField(max_length=66, blank=True)
    streak = models.PositiveIntegerField(default=0, help_text="Audits passed in a row; the longer, the rarer they get")
    created = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.UniqueConstraint(Lower("user_name"), name="user_name_ignores_case")]

    def __str__(self) -> str:
        return self.user_name


class StandingEvent(models.Model):
    """Why and when a provider's standing changed. `actor` is an admin's e-mail, or "platform"."""

    provider = models.ForeignKey(Provider, models.PROTECT, related_name="history")
    old = models.CharField(max_length=8, choices=Standing.choices)
    new = models.CharField(max_length=8, choices=Standing.choices)
    reason = models.TextField()
    actor = models.CharField(max_length=254, default="platform")
    case = models.UUIDField("ticket or case", null=True, blank=True)
    at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["id"]


class Accusation(models.Model):
    """A case against providers. The chain keeps its hash; the lists are needed again to execute the ban."""

    class State(models.TextChoices):
        OPEN = "open", "in challenge time"
        LIFTED = "lifted", "lifted"
        EXECUTED = "executed", "ban executed"
        LAPSED = "lapsed", "lapsed: not executed in time"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    cheats = models.ManyToManyField(Provider, related_name="accusations")
    honest = models.JSONField(default=list, help_text="Wallets that get the deposits; none: the treasury")
    reason = models.TextField()
    evidence = models.JSONField(default=dict)
    state = models.CharField(max_length=8, choices=State.choices, default=State.OPEN)
    executable_at = models.DateTimeField(null=True, blank=True, help_text="The end of the challenge time, by the chain")
    lapses_at = models.DateTimeField(null=True, blank=True, help_text="From then on the ban can't be executed any more")
    created = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-created"]

    def __str__(self) -> str:
        return f"case {self.id}"


class Answer(models.Model):
    """What an accused provider says to a case. Nothing is ever taken back: another answer follows."""

    accusation = models.ForeignKey(Accusation, models.PROTECT, related_name="answers")
    provider = models.ForeignKey(Provider, models.PROTECT, related_name="answers")
    text = models.TextField()
    at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["id"]

    def __str__(self) -> str:
        return f"answer of {self.provider} to {self.accusation}"


class ConnectionQuerySet(models.QuerySet["Connection"]):
    def online(self) -> "ConnectionQuerySet":
        """Those heard from lately; a crashed web process leaves rows behind that this ignores."""
        return self.filter(seen__gt=timezone.now() - timedelta(seconds=settings.PRESENCE_SECONDS))


class Connection(models.Model):
    """A worker's open WebSocket. Kept in the database, so that it outlives no process unnoticed."""

    provider = models.ForeignKey(Provider, models.CASCADE, related_name="connections")
    channel = models.CharField(max_length=200, unique=True)
    device = models.CharField(max_length=200, blank=True)
    opened = models.DateTimeField(auto_now_add=True)
    seen = models.DateTimeField(default=timezone.now)

    objects = ConnectionQuerySet.as_manager()

    def __str__(self) -> str:
        return f"{self.provider} on {self.device}"
