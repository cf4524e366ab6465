"""A run trains one ticket's model in rounds; an assignment is one shard of one round in a provider's hands."""

import uuid

from django.db import models

from dmlworker import schedules
from providers.models import Provider
from tickets.models import Ticket


class Blobs(models.Manager["Blob"]):
    """Those whose bytes are here. All there ever were: `Blob.everything`."""

    def get_queryset(self) -> models.QuerySet["Blob"]:
        return super().get_queryset().filter(erased=None)


class Blob(models.Model):
    """Bytes known by their SHA-256: shards, weights, updates. Kept in the file storage under `blobs/`."""

    sha256 = models.CharField(max_length=64, primary_key=True)
    size = models.BigIntegerField()
    created = models.DateTimeField(auto_now_add=True)
    sender = models.ForeignKey(
        Provider, models.PROTECT, related_name="+", null=True, help_text="Who sent it, as long as nothing names it"
    )
    erased = models.DateTimeField(
        null=True, help_text="The bytes are gone, with the account of the customer they were of"
    )

    objects = Blobs()
    everything = models.Manager["Blob"]()

    def __str__(self) -> str:
        return self.sha256


class Run(models.Model):
    class State(models.TextChoices):
        WAITING = "waiting", "waiting for providers"
        TRAINING = "training", "training"
        DONE = "done", "done"
        STOPPED = "stopped", "stopped"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    ticket = models.OneToOneField(Ticket, models.PROTECT, related_name="run")
    state = models.CharField(max_length=8, choices=State.choices, default=State.WAITING)
    spec = models.ForeignKey(Blob, models.PROTECT, related_name="+", help_text="The model's Keras configuration, JSON")
    start = models.ForeignKey(Blob, models.PROTECT, related_name="+", help_text="Initial weights")
    holdout = models.ForeignKey(Blob, models.PROTECT, related_name="+")
    classes = models.JSONField()
    facts = models.JSONField(default=dict, help_text="What the data is, for the model card")
    metrics = models.JSONField(
        null=True, help_text="Of the final model on the hold-out: by name [value, low, high] (dmlworker/metrics.py)"
    )
    rounds = models.PositiveIntegerField()
    epochs = models.PositiveIntegerField()
    batch_size = models.PositiveIntegerField()
    optimizer = models.CharField(
        max_length=8, default="sgd", db_default="sgd", help_text="Of the workers' steps (dmlworker/optimizers.py)"
    )
    learning_rate = models.FloatField()
    schedule = models.CharField(
        max_length=10, default=schedules.CONSTANT, help_text="How the learning rate changes over the rounds"
    )
    clip = models.FloatField(default=0.0, help_text="The norm that a step's gradient has at most; 0: any")
    search = models.JSONField(
        null=True,
        help_text="For the learning rate: what was tried and found (ratesearch.py); none if it was not asked for",
    )
    patience = models.PositiveIntegerField(
        default=0, help_text="End after so many rounds without a lower loss; 0: never"
    )
    strategy = models.CharField(max_length=8, default="fedavg", help_text="What is done with a round's mean")
    rule = models.CharField(max_length=10, default="mean", help_text="How a round's updates become one")
    byzantine = models.PositiveSmallIntegerField(default=1, help_text="Cheats that a robust rule is to withstand")
    proximal = models.FloatField(default=0.0, help_text="FedProx: the pull back to the round's start weights")
    compression = models.CharField(max_length=4, default="none", help_text="Of the updates on their way here")
    segment_steps = models.PositiveIntegerField(default=5, help_text="Steps between two checkpoints of a worker")
    seed = models.BigIntegerField()
    created = models.DateTimeField(auto_now_add=True)
    finished = models.DateTimeField(null=True, blank=True)
    converted = models.DateTimeField(null=True, help_text="When the model's other formats were made, or given up")
    delivered = models.DateTimeField(null=True, help_text="When the customer had all files, the card being the last")

    def __str__(self) -> str:
        return f"run of {self.ticket}"

    @property
    def ordered(self) -> int:
        """Rounds; `rounds` are less once a run has ended early."""
        return self.ticket.rounds


class Shard(models.Model):
    """A part of the training data. `number` fixes the order of averaging."""

    run = models.ForeignKey(Run, models.PROTECT, related_name="shards")
    number = models.PositiveIntegerField()
    blob = models.ForeignKey(Blob, models.PROTECT, related_name="+")
    samples = models.PositiveIntegerField()

    class Meta:
        ordering = ["number"]
        constraints = [models.UniqueConstraint(fields=["run", "number"], name="shard_number_once_per_run")]


class Rounds(models.Manager["Round"]):
    """Those that count. All there ever were: `Round.everything`."""

    def get_queryset(self) -> models.QuerySet["Round"]:
        return super().get_queryset().filter(voided=None)


class Round(models.Model):
    """Open until its updates are averaged. While the next round trains, it is checked: measured, screened, audited.

    Where a check finds work that may not stay in an average, its round is opened again, and the rounds that were built on it
    are void: they stay to be read, and count for nothing."""

    class State(models.TextChoices):
        OPEN = "open", "training"
        CLOSED = "closed", "averaged"

    run = models.ForeignKey(Run, models.PROTECT, related_name="all_rounds")
    number = models.PositiveIntegerField(help_text="From 1")
    state = models.CharField(max_length=8, choices=State.choices, default=State.OPEN)
    start = models.ForeignKey(Blob, models.PROTECT, related_name="+", help_text="Global weights before the round")
    end = models.ForeignKey(Blob, models.PROTECT, related_name="+", null=True, help_text="Global weights after it")
    kept = models.ForeignKey(
        Blob,
        models.PROTECT,
        related_name="+",
        null=True,
        help_text="What the server's optimizer keeps for the next round",
    )
    root = models.ForeignKey(
        Blob,
        models.PROTECT,
        related_name="+",
        null=True,
        help_text="The platform's own update, on a part of the hold-out",
    )
    accuracy = models.FloatField(
        null=True, help_text="Of the averaged model on the hold-out: the task's score (dmlworker/task.py)"
    )
    loss = models.FloatField(null=True)
    by_class = models.JSONField(
        null=True, help_text="How the averaged model does on the hold-out in more than a number (measures.py)"
    )
    opened = models.DateTimeField(auto_now_add=True)
    closed = models.DateTimeField(null=True)
    checked = models.DateTimeField(null=True, help_text="When its updates were measured, screened and audited")
    voided = models.DateTimeField(null=True, help_text="When the run went back to an earlier round")

    objects = Rounds()
    everything = models.Manager()

    class Meta:
        ordering = ["number"]
        constraints = [
            models.UniqueConstraint(
                fields=["run", "number"], condition=models.Q(voided=None), name="round_number_once_per_run"
            )
        ]

    def __str__(self) -> str:
        return f"round {self.number} of {self.run}"

    @property
    def learning_rate(self) -> float:
        """Of this round, by the run's schedule."""
        run = self.run
        return schedules.rate(run.schedule, run.learning_rate, self.number, run.ordered)


class Assignment(models.Model):
    """A lease: (run, round, shard, attempt). At most one per shard and round is live."""

    class State(models.TextChoices):
        OFFERED = "offered"
        ACCEPTED = "accepted"
        COMMITTED = "committed"
        REJECTED = "rejected", "rejected: malformed"
        DECLINED = "declined", "declined by the worker"
        EXPIRED = "expired", "expired: given to someone else"
        CANCELLED = "cancelled"
        UNPROVEN = "unproven", "not shown to an audit"
        REVOKED = "revoked", "taken out: the provider was convicted"
        VOID = "void", "void: the run went back to an earlier round"

    LIVE = [State.OFFERED, State.ACCEPTED, State.COMMITTED]

    round = models.ForeignKey(Round, models.PROTECT, related_name="assignments")
    shard = models.ForeignKey(Shard, models.PROTECT, related_name="assignments")
    provider = models.ForeignKey(Provider, models.PROTECT, related_name="assignments")
    attempt = models.PositiveIntegerField(default=1)
    state = models.CharField(max_length=9, choices=State.choices, default=State.OFFERED)
    deadline = models.DateTimeField(help_text="Moves on with every sign of progress")
    channel = models.CharField(max_length=200, blank=True, help_text="The connection whose worker accepted")
    step = models.PositiveIntegerField(default=0)
    steps = models.PositiveIntegerField(default=0)
    update = models.ForeignKey(Blob, models.PROTECT, related_name="+", null=True, help_text="As the worker sent it")
    weights = models.ForeignKey(
        Blob, models.PROTECT, related_name="+", null=True, help_text="What the update stands for"
    )
    root = models.CharField(max_length=64, blank=True, help_text="Of the trace that the worker committed to")
    offered = models.DateTimeField(auto_now_add=True)
    accepted = models.DateTimeField(null=True, help_text="When a worker first took it")
    committed = models.DateTimeField(null=True)
    received = models.DateTimeField(null=True, help_text="When its update was found well-formed, and looked at")
    weight = models.PositiveBigIntegerField(null=True, help_text="How much its update counted in the average")
    correct = models.PositiveIntegerField(
        null=True, help_text="Hold-out samples that the update alone gets right, or what stands for it (rewards.Work)"
    )
    score = models.FloatField(null=True, help_text="Of the update alone on the hold-out, as the task has it")
    f1 = models.FloatField("F1", null=True, help_text="Of the update alone on the hold-out, mean over the classes")
    contribution = models.FloatField(
        null=True, help_text="By how much the loss of the round's mean is lower with it; where the reward needs it"
    )
    look = models.JSONField(null=True, help_text="How its update does on some samples (evidence.Look), for the screen")
    joules = models.FloatField("energy", null=True, help_text="Joules, as its worker reported; empty: not known")
    gpu = models.FloatField("GPU use", null=True, help_text="Share of the time, as its worker reported")
    suspicion = models.TextField(
        blank=True, help_text="What the screen noticed; orders an audit, and halves the weight unless all look odd"
    )
    note = models.TextField(blank=True)

    class Meta:
        ordering = ["round", "shard", "attempt"]
        indexes = [
            models.Index(
                fields=["provider"], condition=models.Q(state__in=["offered", "accepted"]), name="assignment_open"
            )
        ]
        constraints = [
            models.UniqueConstraint(fields=["round", "shard", "attempt"], name="attempt_once_per_shard_and_round"),
            models.UniqueConstraint(
                fields=["round", "shard"],
                condition=models.Q(state__in=["offered", "accepted", "committed"]),
                name="one_live_assignment_per_shard",
            ),
        ]

    def __str__(self) -> str:
        return f"shard {self.shard.number} of {self.round} by {self.provider}"


class Audit(models.Model):
    """A look at how an update came about: the worker shows the trace that it committed to, and the platform does some of its
    segments again."""

    class State(models.TextChoices):
        ASKED = "asked", "the worker is asked to show its work"
        SHOWN = "shown", "shown, to be replayed"
        PASSED = "passed"
        FAILED = "failed", "failed: two replays contradict it"
        INCONCLUSIVE = "inconclusive", "inconclusive: this job amplifies rounding"
        UNPROVEN = "unproven", "the work was not shown"

    UNDECIDED = [State.ASKED, State.SHOWN]

    assignment = models.OneToOneField(Assignment, models.PROTECT, related_name="audit")
    why = models.TextField()
    drawn = models.JSONField(default=list, help_text="Segments drawn by chance, from 0")
    state = models.CharField(max_length=12, choices=State.choices, default=State.ASKED)
    deadline = models.DateTimeField(help_text="To show the work; later while its worker is busy with another lease")
    trace = models.ForeignKey(Blob, models.PROTECT, related_name="+", null=True)
    note = models.TextField(blank=True)
    asked = models.DateTimeField(auto_now_add=True)
    decided = models.DateTimeField(null=True)

    class Meta:
        ordering = ["id"]
        indexes = [models.Index(fields=["assignment"], condition=models.Q(state="asked"), name="audit_asked")]

    def __str__(self) -> str:
        return f"audit of {self.assignment}"


class Replay(models.Model):
    """A segment done again by the platform. Two that contradict a claim and confirm each other, and only they, convict."""

    audit = models.ForeignKey(Audit, models.PROTECT, related_name="replays")
    segment = models.PositiveIntegerField(help_text="From 0")
    number = models.PositiveSmallIntegerField(help_text="1, or 2 in another process, with other rounding")
    start = models.CharField(max_length=64, help_text="SHA-256 of the checkpoint that it began with")
    claimed = models.CharField(max_length=64, help_text="SHA-256 of the checkpoint that the worker committed to")
    relative = models.FloatField(
        "relative distance",
        help_text="|claimed - replayed| / |replayed - start|; or that of the optimizer's state, if it is larger",
    )
    allowed = models.FloatField(help_text="The largest relative distance that counts as rounding")
    cosine = models.FloatField(help_text="Between the claimed and the replayed change")
    result = models.CharField(
        max_length=64,
        default="",
        help_text="SHA-256 of the checkpoint that it ended with; kept where it contradicts the claim",
    )
    apart = models.FloatField(
        null=True,
        help_text="The largest relative distance between the first replay and the other honest ones; none where the first agrees",
    )
    agrees = models.BooleanField()
    at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["id"]
        constraints = [models.UniqueConstraint(fields=["audit", "segment", "number"], name="replay_number_once")]
