"""Every move of a ticket is a verb here, called alike by page, API, admin, socket and job."""

import hashlib
import logging
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.core.files import File
from django.core.files.storage import default_storage
from django.db import transaction
from django.db.models import F, QuerySet, Sum
from django.utils import timezone

from accounts.models import User
from contracts.chain import Call, Quote
from dmlsite import jobs, live
from dmlsite.errors import Conflict, Forbidden, Invalid
from dmlworker import flops, rewards, task, zoo
from dmlworker.aggregation import rules
from dmlworker.datasets import DatasetError, Options
from ledger import actions as ledger
from ledger import money, pricing
from ledger.alarms import Kind, alarm
from ledger.gateway import chain, key
from ledger.models import ChainEvent, Sighting
from observe import logs
from tickets import files, mail, ownmodels
from tickets.models import (
    DATA,
    ENDED,
    MOVES,
    REFUNDABLE,
    Artifact,
    Dataset,
    PartialUpload,
    Status,
    Task,
    Ticket,
    TicketEvent,
    UploadPart,
)

log = logging.getLogger(__name__)

GRACE = timedelta(minutes=30)
"""A quote is not called expired before a payment sent in time had this long to become final."""

MOST_UNPAID = 200
"""Orders of one person that wait for payment."""

MOST_UNPAID_BYTES = 10**9
"""Of start weights that one person sent in a month with orders that were not paid."""

NAME_LENGTH = 200
"""Characters of a file's name that are kept, from its end, where the ending is."""

PUT_TOGETHER_PATIENCE = timedelta(minutes=2)
"""A file whose parts are all here, and that nobody tried to put together for so long, is put together by a job."""
GIVING_BACK = "Giving your payment back"
LOST = "Parts of your file were lost on our side. Please upload it again."


def order(
    customer: User,
    *,
    file_name: str,
    file_size: int,
    payer: str,
    sample_shape: Sequence[int] = (),
    outputs: int | None = None,
    tokens: int | None = None,
    model_file: File | None = None,
    model_weights: File | None = None,
    **options: Any,
) -> Ticket:
    """Quote a price for a file of `file_size` bytes; `payer` is the only wallet that can pay it. `samples`, `sample_shape`, `outputs` and `tokens` are
    what the customer says of the file, for a price by what is computed.

    `options` are the training's settings: target, model_kind, rounds, patience, epochs, batch_size, optimizer, learning_rate, search, schedule,
    clip, rule, byzantine, strategy, proximal, compression, attested, on_cheat, reward, seed, price_scheme, samples; and of the data: task,
    leave_out, kinds, group, window, horizon, sharding, class_weights. `model_file`, `model_weights`: a model of the customer's own.
    """
    if model_weights and not model_file:
        raise Invalid("Start weights need the model that they belong to.", "model_file")
    if file_size <= 0:
        raise Invalid("The file is empty.")
    if file_size > settings.MAX_DATASET_BYTES:
        raise Invalid(f"The file is larger than {settings.MAX_DATASET_BYTES / 1e6:,.0f} MB, the most we take.")
    _check_rule(options)
    _check_data(options)
    if options.get("reward", rewards.DEFAULT) not in rewards.OFFERED:
        raise Invalid(f"The reward is one of {', '.join(rewards.OFFERED)}.")
    _check_quota(customer)
    own, found = ownmodels.read(model_file, model_weights) if model_file else (None, None)
    now = timezone.now().replace(microsecond=0)
    ticket = Ticket(
        customer=customer,
        file_name=file_name,
        file_size=file_size,
        payer=payer,
        pay_by=now + timedelta(seconds=settings.QUOTE_SECONDS),
        settle_by=now + timedelta(seconds=settings.SETTLE_SECONDS),
        **options,
    )
    set_price(ticket, sample_shape, outputs, tokens, ownmodels.operations(own) if own else None)
    ticket.signature = chain().sign_quote(quote(ticket), key("quoter"))
    with transaction.atomic():
        ticket.save()
        note(
            ticket,
            "quoted",
            f"{money.dml(ticket.price)} DML for {file_size:,} bytes, {ticket.price_scheme}",
            actor=customer.email,
        )
        if own and found:
            own.ticket = ticket
            ownmodels.keep(own, found.weights)
    return ticket


def set_price(
    ticket: Ticket,
    sample_shape: Sequence[int] = (),
    outputs: int | None = None,
    tokens: int | None = None,
    own: int | None = None,
) -> None:
    """Fill in the price of a ticket that is not saved yet, and what it is made from, by its scheme. tokens: how many different ones, of
    text alone. own: operations for a sample of a model of the customer's own, as `ownmodels.operations` counts. Raises Invalid, with what
    is missing."""
    if ticket.price_scheme not in pricing.OFFERED:
        raise Invalid(f"The price is made by one of {', '.join(pricing.OFFERED)}.")
    if pricing.SCHEMES[ticket.price_scheme].computes:
        ticket.flops = (
            _own_operations(ticket, own) if own is not None else _operations(ticket, sample_shape, outputs, tokens)
        )
        ticket.flops_rate = settings.FLOPS_PER_CENT
    else:
        ticket.samples = None
    ticket.price = pricing.price(ticket.price_scheme, ticket.priced)
    if ticket.price > money.MOST:
        raise Invalid("This costs more DML than there can ever be. Choose fewer rounds, or a smaller model.")


def _operations(ticket: Ticket, sample_shape: Sequence[int], outputs: int | None, tokens: int | None) -> int:
    said = {"samples": ticket.samples, "sample_shape": sample_shape, "outputs": outputs}
    if missing := [name for name, value in said.items() if not value]:
        raise Invalid(
            "A price by complexity needs the number of samples, the shape of one, and the number of the model's outputs.",
            missing[0],
        )
    try:
        return flops.zoo(ticket.model_kind, zoo.Sample(tuple(sample_shape), tokens or 0, ticket.window > 0), outputs)
    except flops.Unknown as error:
        raise Invalid(str(error), "model_kind") from None


def _own_operations(ticket: Ticket, own: int) -> int:
    if not ticket.samples:
        raise Invalid("A price by complexity needs the number of samples.", "samples")
    if not own:
        raise Invalid("How much your model computes can't be told. Choose the price by size.", "model_file")
    return own


def _check_quota(customer: User) -> None:
    """What costs nothing is not without end: orders that wait for payment, and the start weights that came with those never paid for.
    Raises Conflict."""
    unpaid = Ticket.objects.filter(customer=customer, status__in=[Status.QUOTED, Status.EXPIRED])
    if unpaid.filter(status=Status.QUOTED).count() >= MOST_UNPAID:
        raise Conflict(f"You have {MOST_UNPAID} orders that wait for payment. Pay or cancel some first.")
    recent = unpaid.filter(created__gt=timezone.now() - timedelta(days=30)).exclude(own_model__file="")
    weights = recent.aggregate(sum=Sum("own_model__parameters"))["sum"] or 0
    if weights * 4 >= MOST_UNPAID_BYTES:
        raise Conflict("The models of your unpaid orders take too much room. Pay for some, or try again in some days.")


def _check_rule(options: dict[str, Any]) -> None:
    """Raises Invalid, with the reason, for an aggregation that protects nothing."""
    try:
        rules.check(options.get("rule", "mean"), settings.PROVIDERS_PER_TICKET, options.get("byzantine", 1))
    except ValueError as error:
        raise Invalid(str(error)) from None


def _check_data(options: dict[str, Any]) -> None:
    """Raises Invalid, with the reason, for what makes no sense of any data."""
    try:
        Options(**{name: options[name] for name in DATA if name in options}).check()
    except DatasetError as error:
        raise Invalid(str(error), error.field) from None


def quote(ticket: Ticket) -> Quote:
    """What the platform signs and the escrow checks."""
    pay_by, settle_by = (int(moment.timestamp()) for moment in (ticket.pay_by, ticket.settle_by))
    return Quote(ticket=ticket.pk, payer=ticket.payer, amount=ticket.price, pay_by=pay_by, settle_by=settle_by)


def payment_call(ticket: Ticket) -> Call:
    """The one transaction that the customer's wallet signs to pay."""
    if ticket.status != Status.QUOTED:
        raise Conflict("This ticket is no longer waiting for payment.")
    if ticket.pay_by <= timezone.now():
        raise Conflict("This quote has run out. Please order again.")
    return chain().pay_call(quote(ticket), bytes(ticket.signature))


def note(ticket: Ticket, kind: str, text: str, actor: str = "platform") -> None:
    """Write a line into the ticket's timeline and wake the pages that show it."""
    TicketEvent.objects.create(ticket=ticket, kind=kind, text=text, actor=actor)
    live.changed(live.ticket_group(ticket.pk))


def move(ticket: Ticket, new: str, text: str = "", actor: str = "platform", **fields: Any) -> None:
    """The one writer of a ticket's status: a conditional UPDATE on the old status. Raises Conflict if it lost a race."""
    old = ticket.status
    if new not in MOVES[old]:
        raise Conflict(f"A ticket that is {ticket.get_status_display()} cannot become {Status(new).label}.")
    with transaction.atomic():
        if not Ticket.objects.filter(pk=ticket.pk, status=old).update(status=new, **fields):
            raise Conflict("Somebody else changed this ticket a moment ago.")
        TicketEvent.objects.create(ticket=ticket, kind="moved", old=old, new=new, text=text, actor=actor)
        live.changed(live.ticket_group(ticket.pk))
    ticket.refresh_from_db()


def payment_seen(ticket: Ticket) -> None:
    """The escrow's own event, in a final block, says that the ticket is paid. Nothing else does.

    Its refund may have been followed before: after a long standstill both are read at once.
    """
    event = ChainEvent.objects.filter(name="Paid", case=ticket.pk).first()
    if event is None or ticket.status not in (Status.QUOTED, Status.EXPIRED):
        return
    upload_by = timezone.now() + timedelta(seconds=settings.UPLOAD_SECONDS)
    with transaction.atomic():
        move(ticket, Status.PAID, f"paid in {event.tx}", paid_tx=event.tx, upload_by=upload_by)
        refund_seen(ticket)
        if ticket.status == Status.PAID:
            mail.queue(ticket, "paid")


def payment_sighted(ticket: Ticket) -> None:
    """Say that a payment is on the chain but not final yet, or that a reorg took it off again. It opens nothing."""
    if ticket.status not in (Status.QUOTED, Status.EXPIRED):
        return
    sighting = Sighting.objects.filter(name="Paid", case=ticket.pk).first()
    if sighting:
        _note_anew(ticket, "payment", f"payment seen in block {sighting.block}, not final yet: {sighting.tx}")
    elif not ChainEvent.objects.filter(name="Paid", case=ticket.pk).exists():
        _note_anew(ticket, "payment", "the chain has taken back the block with the payment: waiting for it again")


def _note_anew(ticket: Ticket, kind: str, text: str) -> None:
    """As `note`, unless that is the last thing said of its kind: a job may run twice."""
    last = ticket.events.filter(kind=kind).order_by("-id").first()
    if last is None or last.text != text:
        note(ticket, kind, text)


def _note_once(ticket: Ticket, kind: str, text: str) -> None:
    """As `note`, unless it was ever said."""
    if not ticket.events.filter(kind=kind, text=text).exists():
        note(ticket, kind, text)


def upload(ticket: Ticket, file: File, actor: str) -> Dataset:
    """Take the customer's file. A file larger than quoted is refused, and the right one may follow."""
    size = file.size or 0
    require_upload(ticket, size)
    digest = hashlib.sha256()
    for chunk in file.chunks():
        digest.update(chunk)
    file.seek(0)
    name = (file.name or "data")[-NAME_LENGTH:]
    dataset = Dataset(ticket=ticket, name=name, size=size, sha256=digest.hexdigest())
    dataset.file.save(f"{ticket.pk}{_suffix(file.name)}", file, save=False)  # before the transaction: it may take long
    return accept(dataset, actor)


def dataset_name(ticket: Ticket, name: str) -> str:
    """Where the file of a ticket is stored; none is stored there yet."""
    return default_storage.get_available_name(f"datasets/{ticket.pk}{_suffix(name)}")


def accept(dataset: Dataset, actor: str) -> Dataset:
    """A stored and measured file becomes its ticket's. Raises Conflict if another came first, and has this one removed."""
    ticket = dataset.ticket
    try:
        with transaction.atomic():
            move(ticket, Status.UPLOADED, f"{dataset.name}, {dataset.size:,} bytes", actor=actor)
            dataset.save()
            jobs.enqueue("training.tasks.prepare", str(ticket.pk))
    except Conflict:
        files.let_go([dataset.file.name])
        raise
    return dataset


def require_upload(ticket: Ticket, size: int) -> None:
    if ticket.status != Status.PAID:
        raise Conflict("Upload opens when the payment is final, and closes with the first accepted file.")
    if size == 0:
        raise Invalid("The file is empty. Please choose another one.")
    if size > ticket.file_size:
        raise Invalid(
            f"The file has {size:,} bytes, but {ticket.file_size:,} were quoted and paid. Please choose another one."
        )


def begin_upload(ticket: Ticket, name: str, size: int) -> PartialUpload:
    """A file that comes in parts. It takes the place of one that was begun before. The ticket is locked: of two that begin at once
    the later one counts."""
    with transaction.atomic():
        locked = Ticket.objects.select_for_update(no_key=True).get(pk=ticket.pk)
        require_upload(locked, size)
        for begun in PartialUpload.objects.filter(ticket=locked):
            drop_upload(begun)
        return PartialUpload.objects.create(ticket=locked, name=name[-NAME_LENGTH:] or "data", size=size)


def add_part(begun: PartialUpload, offset: int, file: File, actor: str) -> int:
    """The next part; returns how much is here then. Raises Conflict unless it begins where the last one ended. The last one
    makes a whole file of them."""
    if offset + file.size > begun.size:
        raise Invalid(f"The file was said to have {begun.size:,} bytes, and this is more.")
    part = UploadPart(upload=begun, offset=offset)
    part.file.save(f"{begun.pk}-{offset}", file, save=False)  # before the transaction: it may take long
    try:
        with transaction.atomic():
            here = PartialUpload.objects.filter(pk=begun.pk, offset=offset)
            if not here.update(offset=offset + file.size, changed=timezone.now()):
                raise Conflict("This part does not begin where the last one ended.")
            part.save()
    except Conflict:
        files.let_go([part.file.name])
        raise
    begun.refresh_from_db()
    if begun.offset == begun.size:
        put_together(begun, actor)
    return begun.offset


def put_together(begun: PartialUpload, actor: str) -> None:
    """What the parts say, as the customer's file, unless another process is at it. The upload itself is kept, so that one who
    asks again hears that all is here. Raises Conflict if parts are lost, or the ticket takes no file any more."""
    with jobs.claim(f"upload:{begun.pk}") as mine:
        if mine:
            _put_together(begun, actor)


def _put_together(begun: PartialUpload, actor: str) -> None:
    with tempfile.TemporaryFile(dir=settings.FILE_UPLOAD_TEMP_DIR) as whole:
        for part in begun.parts.all():
            with part.file.open() as file:
                shutil.copyfileobj(file, whole)
        if whole.tell() != begun.size:
            _give_up(begun)
        whole.seek(0)
        upload(begun.ticket, File(whole, begun.name), actor)
    _drop_parts(begun)


def _give_up(begun: PartialUpload) -> None:
    """Parts are gone, and no file comes of the rest: the customer is asked for it again, unless it was taken already, or another
    was begun. Raises Conflict."""
    if unassembled().filter(pk=begun.pk).exists():
        with transaction.atomic():
            drop_upload(begun)
            note(begun.ticket, "trouble", LOST)
        raise Conflict(LOST)
    raise Conflict("Somebody else has put this file together a moment ago.")


def unassembled() -> QuerySet[PartialUpload]:
    """All of the file is here, but not as one yet."""
    return PartialUpload.objects.filter(ticket__status=Status.PAID, offset=F("size"))


def left_over() -> QuerySet[PartialUpload]:
    """Nobody is putting these together: a process died after the last part, or it failed."""
    return unassembled().filter(changed__lt=timezone.now() - PUT_TOGETHER_PATIENCE)


def put_together_late(pk: UUID | str) -> None:
    """As `put_together`, for a job. `changed` moves on first: while this goes on, and for a while after it failed, no sweep asks again."""
    begun = left_over().filter(pk=pk).select_related("ticket__customer").first()
    if begun and left_over().filter(pk=pk).update(changed=timezone.now()):
        with apart(begun.ticket, "Putting your file together"):
            put_together(begun, begun.ticket.customer.email)


def drop_upload(begun: PartialUpload) -> None:
    """Forget an upload with all its parts. One that comes just now is either in time, and forgotten too, or refused."""
    with transaction.atomic():
        for locked in PartialUpload.objects.select_for_update().filter(pk=begun.pk):
            _drop_parts(locked)
            locked.delete()


def erase_dataset(ticket: Ticket, actor: str) -> None:
    """Let go of the file that was uploaded; its hash and size stay. Raises Conflict before the ticket's end, and if there is no file."""
    with transaction.atomic():
        locked = Ticket.objects.select_for_update(no_key=True).get(pk=ticket.pk)
        if locked.status not in ENDED:
            raise Conflict("The data is needed until the ticket has ended.")
        kept = Dataset.objects.filter(ticket=ticket).exclude(file="")
        names = list(kept.values_list("file", flat=True))
        if not names:
            raise Conflict("Nothing of the data is here.")
        files.let_go(names)
        kept.update(file="")
        note(ticket, "erased", "the file and the parts cut of it are erased", actor)


def _drop_parts(begun: PartialUpload) -> None:
    with transaction.atomic():
        files.let_go(begun.parts.values_list("file", flat=True))
        begun.parts.all().delete()


def _suffix(name: str | None) -> str:
    ending = (name or "").rsplit(".", 1)[-1].lower()
    return f".{ending}" if ending.isalnum() and len(ending) <= 5 else ""


def cancel(ticket: Ticket, user: User) -> None:
    """The customer changes their mind before training starts: nothing paid, nothing lost; paid, all of it back."""
    if user != ticket.customer:
        raise Forbidden("Only the customer can cancel a ticket.")
    if ticket.status == Status.QUOTED:
        move(ticket, Status.EXPIRED, "cancelled before payment", actor=user.email)
    elif ticket.status in (Status.PAID, Status.UPLOADED):
        refund(ticket, "You cancelled before training started.", actor=user.email)
    else:
        raise Conflict("Training has started; this ticket can no longer be cancelled.")


def refund(ticket: Ticket, reason: str, actor: str = "platform", kind: str = "refunded") -> None:
    """Give the customer the whole payment back. `reason` is shown to them, on the page and in the mail."""
    _require_refundable(ticket)
    with transaction.atomic():
        move(ticket, Status.REFUNDED, reason, actor=actor, outcome=reason)
        ledger.refund(ticket.pk, ticket.payer, ticket.price)
        mail.queue(ticket, kind)


def _require_refundable(ticket: Ticket) -> None:
    if ticket.status not in REFUNDABLE:
        raise Conflict(f"A ticket that is {ticket.get_status_display()} cannot become refunded.")


def refund_for_cheating(ticket: Ticket, reason: str, cheats: Iterable[str], honest: Iterable[str]) -> None:
    """As `refund`, in one chain transaction with the accusation of the cheats' wallets."""
    _require_refundable(ticket)
    with transaction.atomic():
        move(ticket, Status.REFUNDED, reason, outcome=reason)
        ledger.fail_ticket(ticket.pk, ticket.payer, ticket.price, cheats, honest)
        mail.queue(ticket, "mishandled")


def refund_seen(ticket: Ticket) -> None:
    """The chain says that the payment went back. It may do so without us: after `settleBy` anyone may ask for it."""
    event = ChainEvent.objects.filter(name="Refunded", case=ticket.pk).first()
    if event is None:
        return
    with transaction.atomic():
        if Status.REFUNDED in MOVES[ticket.status]:
            reason = "The time to pay the providers ran out, and the payment went back."
            move(ticket, Status.REFUNDED, "refunded on the chain after the deadline", outcome=reason)
            mail.queue(ticket, "refunded")
        _note_anew(ticket, "refund", f"the payment is back in your wallet: {event.tx}")


def understood(ticket: Ticket, learnt: str) -> None:
    """The file was read: write down what is learnt of its target, if that was left to it."""
    Ticket.objects.filter(pk=ticket.pk, task=Task.AUTO).update(task=learnt)
    ticket.refresh_from_db(fields=["task"])


def settle(ticket: Ticket, weights: Mapping[str, int], accuracy: float, receipt_root: str) -> None:
    """Pay the providers by weight (wallet -> merit) and hand the model over. `accuracy` is the final score (dmlworker/task.py)."""
    if ticket.settle_by <= timezone.now() + GRACE:
        raise Conflict("The time to settle has run out; the payment goes back.")
    parts, fee = money.shares(ticket.price, weights)
    with transaction.atomic():
        text = f"{task.told(ticket.task, accuracy)} on data no provider saw"
        move(ticket, Status.SETTLED, text, accuracy=accuracy, outcome=text)
        ledger.release(ticket.pk, parts, fee, receipt_root)


def fail(ticket: Ticket, error: str) -> None:
    """Something broke that the customer cannot mend: refund, and tell the admins."""
    with transaction.atomic():
        note(ticket, "error", error)
        alarm(Kind.TICKET_FAILED, error, case=ticket.pk)
        if ticket.status in REFUNDABLE:
            refund(ticket, f"Something went wrong on our side: {error}", kind="failed")


def store_artifact(ticket: Ticket, name: str, file: File) -> Artifact:
    """Keep a file for the customer; a second one of the same name replaces the first. The ticket is locked: raises Conflict if the
    customer has closed their account meanwhile, and keeps nothing."""
    digest = hashlib.sha256()
    for chunk in file.chunks():
        digest.update(chunk)
    file.seek(0)
    artifact = Artifact.objects.filter(ticket=ticket, name=name).first() or Artifact(ticket=ticket, name=name)
    artifact.size, artifact.sha256 = file.size, digest.hexdigest()
    before = artifact.file.name
    artifact.file.save(f"{ticket.pk}/{name}", file, save=False)  # before the transaction: it may take long
    try:
        with transaction.atomic():
            _require_customer(ticket)
            artifact.save()
            files.let_go([before])
    except Conflict:
        files.let_go([artifact.file.name])
        raise
    return artifact


def _require_customer(ticket: Ticket) -> None:
    """Until commit the customer does not go. Raises Conflict if they have."""
    locked = Ticket.objects.select_for_update(of=("self",), no_key=True).select_related("customer").get(pk=ticket.pk)
    if not locked.customer.is_active:
        raise Conflict("The customer has closed their account.")


def overdue() -> None:
    """Expire quotes nobody paid; refund payments no file followed, and what takes longer than promised; forget uploads that are
    of no use any more. Swept."""
    now = timezone.now()
    for ticket in Ticket.objects.filter(status=Status.QUOTED, pay_by__lt=now - GRACE):
        with apart(ticket, "Ending the quote"):
            move(ticket, Status.EXPIRED, "not paid in time")
    for ticket in Ticket.objects.filter(status=Status.PAID, upload_by__lt=now):
        with apart(ticket, GIVING_BACK):
            refund(ticket, "No file was uploaded in time.")
    late = Ticket.objects.filter(status__in=[Status.UPLOADED, Status.TRAINING], settle_by__lt=now + GRACE)
    for ticket in late:
        with apart(ticket, GIVING_BACK):
            refund(ticket, "Training took longer than the time that was promised.")
    useless = PartialUpload.objects.exclude(ticket__status=Status.PAID).filter(created__lt=now - GRACE)
    for begun in useless.select_related("ticket"):
        with apart(begun.ticket, "Removing the upload"):
            drop_upload(begun)


@contextmanager
def apart(ticket: Ticket, step: str) -> Iterator[None]:
    """A sweep's step for one ticket. An error is told to the admins and, once, on the ticket; the others have their turn, and the next
    sweep tries it again."""
    with logs.about(ticket=ticket.pk):
        try:
            yield
        except Conflict as error:
            log.info("%s: %s: %s", ticket, step, error)  # somebody else moved the ticket: nothing is broken
        except Exception as error:
            kind = type(error).__name__
            log.exception("%s: %s", ticket, step)
            _note_once(ticket, "trouble", f"{step} failed ({kind}). It is tried again.")
            alarm(Kind.TICKET_FAILED, f"{step}: {kind}: {error}", case=ticket.pk)


def get(pk: UUID | str) -> Ticket:
    return Ticket.objects.get(pk=pk)
