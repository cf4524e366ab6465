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


class Measurement(models.Model):
    """What a confidential guest was started with, as its processor measured it. An admin allows it, and may take that back."""

    value = models.CharField("measurement", max_length=96, unique=True, help_text="96 hexadecimal digits")
    title = models.CharField(max_length=200, help_text="Which image it is, and where it can be built again")
    allowed = models.BooleanField(default=True)

    def __str__(self) -> str:
        return f"{self.title} ({self.value[:12]}…)"


class MeasurementEvent(models.Model):
    """Why, when and by whom a measurement was allowed, or no longer. Never changed."""

    measurement = models.ForeignKey(Measurement, models.PROTECT, related_name="history")
    allowed = models.BooleanField()
    reason = models.TextField()
    actor = models.CharField(max_length=254)
    at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["id"]


class AttestationQuerySet(models.QuerySet["Attestation"]):
    def good(self) -> "AttestationQuerySet":
        """Those that count now."""
        valid = self.filter(state=Attestation.State.VALID, expires__gt=timezone.now())
        return valid.filter(measurement__allowed=True)


class Attestation(models.Model):
    """A worker's proof of what it runs in: asked for by a nonce, presented once, and valid for a while. The evidence is kept as it came."""

    class State(models.TextChoices):
        ASKED = "asked", "asked for"
        VALID = "valid", "valid until it expires"
        REFUSED = "refused", "refused"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    provider = models.ForeignKey(Provider, models.CASCADE, related_name="attestations")
    nonce = models.CharField(max_length=64, unique=True)
    state = models.CharField(max_length=7, choices=State.choices, default=State.ASKED)
    asked = models.DateTimeField(auto_now_add=True)
    presented = models.DateTimeField(null=True, help_text="From then on the nonce is used up")
    session = models.CharField(
        max_length=64,
        blank=True,
        db_index=True,
        help_text="SHA-256 of the secret that the worker shows when it connects",
    )
    report = models.BinaryField(default=bytes)
    certificate = models.BinaryField(default=bytes, help_text="Of the key that signed the report")
    reason = models.TextField(blank=True, help_text="Why it was refused")
    product = models.CharField(max_length=20, blank=True)
    chip = models.CharField(max_length=200, blank=True, help_text="The chip's id, or the cloud provider's name")
    tcb = models.CharField("TCB", max_length=40, blank=True, help_text="Security versions of the firmware")
    measurement = models.ForeignKey(Measurement, models.PROTECT, related_name="attestations", null=True)
    expires = models.DateTimeField(null=True)

    objects = AttestationQuerySet.as_manager()

    class Meta:
        ordering = ["-asked"]

    def __str__(self) -> str:
        return f"attestation {str(self.pk)[:8]} of {self.provider}"


class ConnectionQuerySet(models.QuerySet["Connection"]):
    def online(self, attested: bool = False) -> "ConnectionQuerySet":
        """Those heard from lately, or of these the attested ones; a crashed web process leaves rows behind that this ignores."""
        found = self.filter(seen__gt=timezone.now() - timedelta(seconds=settings.PRESENCE_SECONDS))
        theirs = Attestation.objects.good().filter(
            provider=models.OuterRef("provider"), session=models.OuterRef("session")
        )
        return found.filter(models.Exists(theirs)).exclude(session="") if attested else found


class Connection(models.Model):
    """A worker's open WebSocket. Kept in the database, so that it outlives no process unnoticed."""

    provider = models.ForeignKey(Provider, models.CASCADE, related_name="connections")
    channel = models.CharField(max_length=200, unique=True)
    device = models.CharField(max_length=200, blank=True)
    session = models.CharField(
        max_length=64, blank=True, default="", db_default="", help_text="Of the worker's attestation, if it has one"
    )
    opened = models.DateTimeField(auto_now_add=True)
    seen = models.DateTimeField(default=timezone.now)

    objects = ConnectionQuerySet.as_manager()

    def __str__(self) -> str:
        return f"{self.provider} on {self.device}"
