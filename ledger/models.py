"""Append-only double entry, the outbox of chain transactions, and what the chain told us.

Amounts are integers: micro-DML (10^-6 DML) for the token, gwei for the native coin.
"""

import uuid

from django.db import models
from django.db.models import F, Q, Sum

from ledger import money


class Currency(models.TextChoices):
    DML = "DML", "DML (micro)"
    COIN = "COIN", "native coin (gwei)"


class Transfer(models.Model):
    """One amount moved from account `debit` to account `credit`. Rows are never changed (a trigger sees to it).

    A PENDING transfer says what has been decided; a POST or VOID row, at most one per pending, says what became of
    it. Only POSTED and POST rows count in a balance.
    """

    class Kind(models.TextChoices):
        POSTED = "posted"
        PENDING = "pending"
        POST = "post"
        VOID = "void"

    key = models.CharField(max_length=200, unique=True, help_text="Idempotency key: a second one is refused")
    kind = models.CharField(max_length=8, choices=Kind.choices)
    pending = models.OneToOneField("self", models.PROTECT, null=True, blank=True, related_name="outcome")
    currency = models.CharField(max_length=4, choices=Currency.choices)
    debit = models.CharField("from account", max_length=100, db_index=True)
    credit = models.CharField("to account", max_length=100, db_index=True)
    amount = models.BigIntegerField()
    case = models.UUIDField("ticket or case", null=True, db_index=True)
    event = models.ForeignKey("ChainEvent", models.PROTECT, null=True, blank=True, related_name="transfers")
    created = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["id"]
        constraints = [
            models.CheckConstraint(condition=Q(amount__gt=0), name="transfer_amount_positive"),
            models.CheckConstraint(condition=~Q(debit=models.F("credit")), name="transfer_between_two_accounts"),
            models.CheckConstraint(
                condition=Q(kind__in=["post", "void"], pending__isnull=False)
                | Q(kind__in=["posted", "pending"], pending__isnull=True),
                name="transfer_outcome_names_its_pending",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.amount_text} {self.debit} → {self.credit} ({self.kind})"

    @property
    def amount_text(self) -> str:
        """The amount in DML or in coins, with its unit."""
        if self.currency == Currency.DML:
            return f"{money.dml(self.amount)} DML"
        return f"{money.coin(self.amount)} coin"


COUNTED = [Transfer.Kind.POSTED, Transfer.Kind.POST]


def balance(account: str, currency: str = Currency.DML) -> int:
    """Credits less debits of an account, in micro-DML or gwei."""
    rows = Transfer.objects.filter(currency=currency, kind__in=COUNTED)
    credits = rows.filter(credit=account).aggregate(total=Sum("amount"))["total"] or 0
    debits = rows.filter(debit=account).aggregate(total=Sum("amount"))["total"] or 0
    return int(credits - debits)


class ChainTx(models.Model):
    """What we want the chain to do, once: an intent. How often we tried is in its attempts."""

    class State(models.TextChoices):
        READY = "ready", "to be sent"
        SENT = "sent", "signed and sent"
        FINAL = "final", "final"
        REVERTED = "reverted", "reverted on the chain"
        DROPPED = "dropped", "no longer wanted"
        FOREIGN = "foreign", "not ours: somebody else spent this nonce with our key"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    key = models.CharField(max_length=200, unique=True, help_text="Idempotency key, e.g. settle:<ticket>")
    verb = models.CharField(max_length=20)
    case = models.UUIDField("ticket or case", null=True, db_index=True)
    role = models.CharField(max_length=10, default="settler", help_text="Whose key signs it")
    to = models.CharField(max_length=42, blank=True)
    data = models.TextField(blank=True)
    value_gwei = models.BigIntegerField(default=0)
    sender = models.CharField(max_length=42, blank=True)
    nonce = models.BigIntegerField(null=True, blank=True)
    not_before = models.DateTimeField(null=True, blank=True, help_text="Executing a ban waits for the challenge time")
    state = models.CharField(max_length=8, choices=State.choices, default=State.READY)
    error = models.TextField(blank=True)
    created = models.DateTimeField(auto_now_add=True)
    final_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        verbose_name = "chain transaction"
        ordering = ["-created"]
        constraints = [
            models.UniqueConstraint(
                fields=["sender", "nonce"], name="one_intent_per_nonce", condition=Q(nonce__isnull=False)
            )
        ]

    def __str__(self) -> str:
        return f"{self.verb} {self.case} ({self.state})"

    @property
    def hash(self) -> str:
        """The hash that counts: the final attempt's, else the latest one's."""
        attempt = self.attempts.order_by(F("block").desc(nulls_last=True), "-id").first()
        return attempt.hash if attempt else ""


class Attempt(models.Model):
    """Signed bytes, stored before they are sent: a retry sends the same bytes."""

    tx = models.ForeignKey(ChainTx, models.PROTECT, related_name="attempts")
    raw = models.BinaryField()
    hash = models.CharField(max_length=66, unique=True)
    gas = models.BigIntegerField()
    max_fee_gwei = models.BigIntegerField()
    tip_gwei = models.BigIntegerField()
    created = models.DateTimeField(auto_now_add=True)
    broadcasts = models.PositiveIntegerField(default=0)
    error = models.TextField(blank=True)
    block = models.BigIntegerField(null=True, blank=True)
    gas_used = models.BigIntegerField(null=True, blank=True)
    fee_gwei = models.BigIntegerField(null=True, blank=True)

    class Meta:
        ordering = ["id"]

    def __str__(self) -> str:
        return self.hash


class ChainEvent(models.Model):
    """An event of our escrow in a final block."""

    chain_id = models.BigIntegerField()
    block = models.BigIntegerField()
    block_hash = models.CharField(max_length=66)
    log_index = models.IntegerField()
    tx = models.CharField("transaction", max_length=66, db_index=True)
    name = models.CharField(max_length=30)
    args = models.JSONField()
    case = models.UUIDField("ticket or case", null=True, db_index=True)
    seen = models.DateTimeField(auto_now_add=True)
    followed = models.DateTimeField(null=True, db_index=True, help_text="When the app it concerns had acted on it")

    class Meta:
        ordering = ["block", "log_index"]
        constraints = [
            models.UniqueConstraint(fields=["chain_id", "block_hash", "log_index"], name="event_recorded_once")
        ]

    def __str__(self) -> str:
        return f"{self.name} in block {self.block}"


class Cursor(models.Model):
    """How far the escrow's events have been read: the last final block, and its hash, so another chain is noticed."""

    chain_id = models.BigIntegerField()
    escrow = models.CharField(max_length=42)
    block = models.BigIntegerField()
    block_hash = models.CharField(max_length=66, blank=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["chain_id", "escrow"], name="one_cursor_per_escrow")]


class Sighting(models.Model):
    """An event of our escrow in a block that is not final yet. It moves nothing: a reorg takes it away again."""

    name = models.CharField(max_length=30)
    case = models.UUIDField("ticket or case", db_index=True)
    tx = models.CharField("transaction", max_length=66)
    block = models.BigIntegerField()
    block_hash = models.CharField(max_length=66)

    def __str__(self) -> str:
        return f"{self.name} in block {self.block}, not final"


class Reconciliation(models.Model):
    """One comparison of the books with the chain, at one final block."""

    created = models.DateTimeField(auto_now_add=True)
    block = models.BigIntegerField()
    balanced = models.BooleanField()
    rows = models.JSONField(help_text="Each equality: name, left, right; micro-DML or gwei")

    class Meta:
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"block {self.block}: {'all equal' if self.balanced else 'DIFFERENT'}"


PAYOUTS = "payouts"
"""What an alarm halts, if not one sender's address: everything that takes money out of the escrow."""


class Alarm(models.Model):
    """Something an admin must look at. It stays, and what it halts stands still, until an admin clears it.

    docs/money.md has what to do about each kind.
    """

    class Kind(models.TextChoices):
        ANSWERED = "accusation answered"
        ANOTHER_CHAIN = "another chain"
        BOOKS_DIFFER = "books differ"
        CHAIN_SILENT = "chain silent"
        FEE_CAP = "fee cap reached"
        FINALITY_STILL = "finality stands still"
        FOREIGN_NONCE = "foreign nonce"
        GAS_LOW = "gas low"
        LAPSED = "accusation lapsed"
        MAIL_FAILED = "mail failed"
        OVERDUE = "transaction overdue"
        OVERTAKEN = "settlement overtaken by a refund"
        RECONCILIATION_OVERDUE = "reconciliation overdue"
        REFUSED = "transaction refused"
        RESPLIT = "settlement decided anew"
        REVERTED = "transaction reverted"
        STRAY_DEPOSIT = "stray deposit"
        STRAY_TOKENS = "stray tokens"
        TICKET_FAILED = "ticket failed"
        UNKNOWN_ACCUSATION = "unknown accusation"
        UNPLANNED = "unplanned transfer"

    kind = models.CharField(max_length=40, choices=Kind.choices)
    halts = models.CharField(max_length=42, blank=True, help_text="'payouts', or the sender that stands still")
    case = models.UUIDField("ticket or case", null=True, blank=True, db_index=True)
    text = models.TextField()
    created = models.DateTimeField(auto_now_add=True)
    mailed = models.DateTimeField(null=True, blank=True)
    cleared = models.DateTimeField(null=True, blank=True)
    cleared_by = models.CharField(max_length=254, blank=True)

    class Meta:
        ordering = ["-created"]
        constraints = [
            models.UniqueConstraint(
                fields=["kind", "case", "halts"],
                condition=Q(cleared=None),
                nulls_distinct=False,
                name="one_open_alarm_per_case",
            )
        ]

    def __str__(self) -> str:
        return f"{self.kind}: {self.text[:80]}"
