"""A ticket is a customer's order: quoted, paid, uploaded, trained, then settled or refunded."""

import uuid

from django.conf import settings
from django.db import models
from django.utils import timezone

from dmlworker import rewards, schedules, task
from ledger import pricing


class Status(models.TextChoices):
    QUOTED = "quoted", "waiting for payment"
    PAID = "paid", "paid, waiting for the file"
    UPLOADED = "uploaded", "uploaded, waiting for providers"
    TRAINING = "training", "training"
    SETTLED = "settled", "settled"
    REFUNDED = "refunded", "refunded"
    EXPIRED = "expired", "expired"


MOVES: dict[str, set[str]] = {
    Status.QUOTED: {Status.PAID, Status.EXPIRED},
    Status.EXPIRED: {Status.PAID},  # a payment that was sent in time and became final late still counts
    Status.PAID: {Status.UPLOADED, Status.REFUNDED},
    Status.UPLOADED: {Status.TRAINING, Status.REFUNDED},
    Status.TRAINING: {Status.SETTLED, Status.REFUNDED},
    Status.SETTLED: {Status.REFUNDED},  # only by the chain: a payout that came too late
    Status.REFUNDED: set(),
}

REFUNDABLE = (Status.PAID, Status.UPLOADED, Status.TRAINING)
"""While the platform may still decide on a refund."""

ENDED = (Status.SETTLED, Status.REFUNDED)
"""When what was paid is decided on, and the data is needed no more."""


TRAINING = (
    "rounds",
    "patience",
    "epochs",
    "batch_size",
    "optimizer",
    "learning_rate",
    "schedule",
    "clip",
    "rule",
    "byzantine",
    "strategy",
    "proximal",
    "compression",
)
"""What a customer chooses of the training itself; a run takes it over."""

DATA = ("task", "leave_out", "kinds", "group", "window", "horizon", "sharding", "class_weights")
"""What a customer says of the data, beside the target: `dmlworker.datasets.Options`."""


class OnCheat(models.TextChoices):
    """What becomes of a training in which somebody cheated."""

    REFUND = "refund", "End the training and refund me in full"
    CONTINUE = "continue", "Take the cheat's work out and go on"


class Search(models.TextChoices):
    """Whether learning rates, and other widths of the platform's own models, are tried before the training."""

    OFF = "off", "No: train with the one above"
    ON = "on", "Yes: try a few, take the best"


class Task(models.TextChoices):
    """What of the target is learnt; "auto" until the file was read."""

    AUTO = task.AUTO, "Found by its values"
    CLASSIFICATION = task.CLASSIFICATION, "A class: one of several"
    REGRESSION = task.REGRESSION, "A number"
    MULTILABEL = task.MULTILABEL, "Labels: any of several at once"


class Ticket(models.Model):
    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    customer = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="tickets")
    status = models.CharField(max_length=8, choices=Status.choices, default=Status.QUOTED, db_index=True)
    file_name = models.CharField(max_length=200)
    file_size = models.BigIntegerField("quoted size", help_text="Bytes; a larger file is refused")
    target = models.CharField(max_length=200, blank=True, help_text="CSV: the column to predict; empty: found")
    model_kind = models.CharField(max_length=20, default="auto")
    rounds = models.PositiveIntegerField(default=10)
    patience = models.PositiveIntegerField(
        default=0, help_text="End after so many rounds without a lower loss; 0: never"
    )
    epochs = models.PositiveIntegerField("local epochs", default=1)
    batch_size = models.PositiveIntegerField(default=20)
    optimizer = models.CharField(
        "local optimizer", max_length=8, default="sgd", db_default="sgd", help_text="Of the providers' steps"
    )
    learning_rate = models.FloatField(default=0.1)
    schedule = models.CharField(
        max_length=10, default=schedules.CONSTANT, help_text="How the learning rate changes over the rounds"
    )
    search = models.CharField("learning rate is searched", max_length=3, choices=Search.choices, default=Search.OFF)
    clip = models.FloatField(
        null=True,
        blank=True,
        help_text="The norm that a step's gradient has at most; 0: any; empty: what suits the task (dmlworker/task.py)",
    )
    strategy = models.CharField(max_length=8, default="fedavg")
    rule = models.CharField(max_length=10, default="mean")
    byzantine = models.PositiveSmallIntegerField(default=1, help_text="Cheats that a robust rule is to withstand")
    proximal = models.FloatField(default=0.01, help_text="Only for fedprox")
    compression = models.CharField(
        max_length=4, default="none", help_text="Of the updates on their way to the platform"
    )
    attested = models.BooleanField(
        "attested providers only",
        default=False,
        db_default=False,
        help_text="Its data goes to workers whose attestation holds, alone",
    )
    on_cheat = models.CharField("if a provider cheats", max_length=8, choices=OnCheat.choices, default=OnCheat.REFUND)
    reward = models.CharField(
        max_length=20, default=rewards.DEFAULT, help_text="The scheme by which the providers are paid, with its version"
    )
    seed = models.PositiveIntegerField(
        null=True, blank=True, help_text="Of the hold-out, shards and order; empty: drawn"
    )
    task = models.CharField(
        "learns", max_length=14, choices=Task.choices, default=Task.AUTO, help_text="auto: found when the file is read"
    )
    price_scheme = models.CharField(
        max_length=20, default=pricing.DEFAULT, help_text="How the price was made, with its version"
    )
    samples = models.BigIntegerField(null=True, blank=True, help_text="Quoted; empty if the price does not ask for it")
    flops = models.BigIntegerField(
        null=True, blank=True, help_text="Quoted: operations of training on one sample, forward and backward"
    )
    flops_rate = models.BigIntegerField(null=True, blank=True, help_text="Operations for 0.01 DML, as quoted")
    leave_out = models.JSONField(default=list, blank=True, help_text="Columns that are no features")
    kinds = models.JSONField(
        default=dict, blank=True, help_text="What a column is, where it was taken for something else"
    )
    group = models.CharField(
        max_length=200, blank=True, help_text="The column that says which rows stay together, as one person's do"
    )
    window = models.PositiveIntegerField(default=0, help_text="Rows in their order that are one sample; 0: each is one")
    horizon = models.PositiveIntegerField(default=1, help_text="Rows from a window's last to its target")
    sharding = models.CharField(
        max_length=5,
        default="iid",
        help_text="iid; group: a group's rows go to one provider; or speed: larger parts go to the faster providers",
    )
    class_weights = models.CharField(
        max_length=8, default="none", help_text="none, or balanced: rare classes count more"
    )
    price = models.BigIntegerField(help_text="micro-DML")
    payer = models.CharField(max_length=42)
    pay_by = models.DateTimeField()
    settle_by = models.DateTimeField()
    signature = models.BinaryField(help_text="The platform's signature under the quote (EIP-712)")
    paid_tx = models.CharField("payment", max_length=66, blank=True)
    upload_by = models.DateTimeField(null=True, blank=True)
    outcome = models.TextField("why it was refunded, or what was reached", blank=True)
    accuracy = models.FloatField(
        null=True, blank=True, help_text="The score of what it learns: accuracy, R² of a number, macro F1 of labels"
    )
    created = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-created"]

    def __str__(self) -> str:
        return f"ticket {str(self.id)[:8]}"

    @property
    def priced(self) -> pricing.Order:
        """What the price was made from."""
        counted = {"flops": self.flops or 0, "samples": self.samples or 0, "rate": self.flops_rate or 1}
        return pricing.Order(self.file_size, rounds=self.rounds, epochs=self.epochs, **counted)


class TicketEvent(models.Model):
    """One line of a ticket's timeline: a move, or something worth telling. Never changed."""

    ticket = models.ForeignKey(Ticket, models.PROTECT, related_name="events")
    kind = models.CharField(max_length=30, help_text="moved, mailed, error, round…")
    old = models.CharField(max_length=8, blank=True)
    new = models.CharField(max_length=8, blank=True)
    text = models.TextField(blank=True)
    actor = models.CharField(max_length=254, default="platform")
    at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["id"]


class Dataset(models.Model):
    """The customer's file as it was uploaded."""

    ticket = models.OneToOneField(Ticket, models.PROTECT, related_name="dataset")
    file = models.FileField(upload_to="datasets", max_length=300)
    name = models.CharField(max_length=200)
    size = models.BigIntegerField()
    sha256 = models.CharField(max_length=64)
    created = models.DateTimeField(auto_now_add=True)


class OwnModel(models.Model):
    """The Keras model that the customer brought, found to be harmless, and the weights that its training starts with."""

    NAME_LENGTH = 200

    ticket = models.OneToOneField(Ticket, models.PROTECT, related_name="own_model")
    name = models.CharField(max_length=NAME_LENGTH)
    spec = models.TextField(
        help_text="Its configuration, as JSON; preprocessing is put in front when the data is known"
    )
    parameters = models.PositiveIntegerField()
    notes = models.TextField(blank=True, help_text="What was changed, in words")
    file = models.FileField(
        upload_to="models", max_length=300, blank=True, help_text="Start weights (safetensors); empty: drawn at random"
    )
    created = models.DateTimeField(auto_now_add=True)


class PartialUpload(models.Model):
    """A file on its way, of which so much is here: its parts, in order. A new one takes the place of the last."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    ticket = models.OneToOneField(Ticket, models.CASCADE, related_name="partial")
    name = models.CharField(max_length=200)
    size = models.BigIntegerField()
    offset = models.BigIntegerField(default=0)
    created = models.DateTimeField(auto_now_add=True)
    changed = models.DateTimeField(auto_now=True)


class UploadPart(models.Model):
    upload = models.ForeignKey(PartialUpload, models.CASCADE, related_name="parts")
    offset = models.BigIntegerField()
    file = models.FileField(upload_to="parts", max_length=300)

    class Meta:
        ordering = ["offset"]


class Leftover(models.Model):
    """A file that nothing names any more, until it is removed (files.py)."""

    name = models.CharField(max_length=300, unique=True, help_text="In the file storage")
    created = models.DateTimeField(auto_now_add=True)
    due = models.DateTimeField(default=timezone.now, db_index=True, help_text="When it is tried next")
    tries = models.PositiveIntegerField(default=0, help_text="That failed")
    error = models.TextField(blank=True)

    class Meta:
        verbose_name = "file to be removed"
        verbose_name_plural = "files to be removed"
        ordering = ["id"]

    def __str__(self) -> str:
        return self.name


class Artifact(models.Model):
    """A file made for the customer: the model, its weights, the model card."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    ticket = models.ForeignKey(Ticket, models.PROTECT, related_name="artifacts")
    name = models.CharField(max_length=100)
    file = models.FileField(upload_to="artifacts", max_length=300)
    size = models.BigIntegerField()
    sha256 = models.CharField(max_length=64)
    created = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["name"]
        constraints = [models.UniqueConstraint(fields=["ticket", "name"], name="artifact_name_once_per_ticket")]


class Mail(models.Model):
    """A mail that is to go out once."""

    ticket = models.ForeignKey(Ticket, models.PROTECT, related_name="mails")
    kind = models.CharField(max_length=30)
    to = models.EmailField()
    subject = models.CharField(max_length=200, blank=True)
    body = models.TextField(blank=True)
    created = models.DateTimeField(auto_now_add=True)
    due = models.DateTimeField(
        default=timezone.now, help_text="When it is tried next; while a job sends it, when that is given up for dead"
    )
    tries = models.PositiveIntegerField(default=0, help_text="That failed")
    sent = models.DateTimeField(null=True, blank=True)
    error = models.TextField(blank=True)

    class Meta:
        ordering = ["id"]
        constraints = [models.UniqueConstraint(fields=["ticket", "kind", "to"], name="mail_of_a_kind_once")]
