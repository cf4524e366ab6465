"""The customer's pages: order, pay, upload, follow, download."""

from collections.abc import AsyncIterator, Callable, Iterator
from http import HTTPStatus
from typing import IO, Any, cast
from uuid import UUID

from asgiref.sync import sync_to_async
from django.conf import settings
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core import signing
from django.http import (
    Http404,
    HttpRequest,
    HttpResponse,
    HttpResponseBase,
    HttpResponseRedirect,
    StreamingHttpResponse,
)
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.http import content_disposition_header
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST

from accounts import actions as accounts
from accounts import second_factor
from accounts.models import User
from dmlsite.bodies import takes
from dmlsite.errors import Invalid
from dmlsite.limits import CHAIN, CHANGES, FILES, READS, throttle
from dmlsite.views import wallet_request
from dmlworker import rewards
from dmlworker.ownmodel import MAX_FILE, input_shape
from ledger import funds
from ledger.templatetags.money import breakdown
from tickets import actions, bundle, files, mail, ownmodels
from tickets.forms import OrderForm, PriceForm
from tickets.models import Artifact, Ticket
from tickets.ownmodels import OWN_MODELS

CHUNK = 1 << 20
UPLOADS = "60/h"
"""Files that one person may begin to send."""


def own_model_bytes() -> int:
    """A model, and its start weights."""
    return 2 * MAX_FILE


@login_required
def tickets(request: HttpRequest) -> HttpResponse:
    found = Ticket.objects.filter(customer=cast(User, request.user))
    return render(request, "tickets/list.html", {"tickets": found})


@takes(own_model_bytes)
@login_required
def order(request: HttpRequest) -> HttpResponse:
    form = OrderForm(request.POST or None, request.FILES or None, initial=_like(request))
    if request.method == "POST":
        throttle(request, "order", "60/h", "user")
        if form.is_valid() and (found := _ordered(request, form)):
            return redirect("tickets:ticket", found.pk)
    context = {
        "form": form,
        "max_check": settings.MAX_CHECK_BYTES,
        "max_file": settings.MAX_DATASET_BYTES,
        "keep_days": settings.KEEP_DATA_DAYS,
    }
    context["schemes"] = [rewards.SCHEMES[name] for name in rewards.OFFERED]
    return render(request, "tickets/order.html", context, status=422 if form.errors else 200)


@login_required
def price(request: HttpRequest) -> HttpResponse:
    """What an order would cost, for the order page."""
    throttle(request, "price", READS, "user")
    form = PriceForm(request.GET)
    if not form.is_valid():
        raise Invalid(form.first_error())
    said = {name: form.cleaned_data.pop(name) for name in PriceForm.SAID}
    own = form.cleaned_data.pop("own_operations")
    found = Ticket(**form.cleaned_data)
    actions.set_price(found, **said, own=own)
    return render(request, "_price.html", breakdown(found.price, found.price_scheme, found.priced))


@takes(own_model_bytes)
@login_required
@require_POST
def own_model(request: HttpRequest) -> HttpResponse:
    """Read a model of the customer's own before it is ordered, say what it is, keep nothing."""
    throttle(request, "own-model", OWN_MODELS, "user")
    file = request.FILES.get("model_file")
    if file is None:
        raise Invalid("Please choose a file.")
    own, found = ownmodels.read(file, request.FILES.get("model_weights"))
    ownmodels.check(found, request.POST.get("data_shape", ""), request.POST.get("data_classes", ""))
    told = {"own": own, "found": found, "shape": input_shape(found.spec), "operations": ownmodels.operations(own)}
    return render(request, "tickets/_own_model.html", told)


def _like(request: HttpRequest) -> dict[str, Any]:
    """The settings of a ticket of one's own, to be trained again: `?like=ID`. The file is chosen anew."""
    if not (pk := request.GET.get("like")):
        return {}
    try:
        ticket = own(request, UUID(pk))
    except ValueError:
        raise Http404 from None
    return {name: getattr(ticket, name) for name in OrderForm.KEPT}


def _ordered(request: HttpRequest, form: OrderForm) -> Ticket | None:
    user = cast(User, request.user)
    if request.FILES:
        throttle(request, "own-model", OWN_MODELS, "user")
    try:
        found = actions.order(user, **form.options())
    except Invalid as error:
        form.add_error(error.field, str(error))
        return None
    accounts.become(user, "customer")
    return found


@login_required
@never_cache
def ticket(request: HttpRequest, pk: UUID) -> HttpResponse:
    return render(request, "tickets/ticket.html", {"ticket": visible(request, pk)})


def visible(request: HttpRequest, pk: UUID) -> Ticket:
    """A ticket that its customer may see, and an admin with the right to; for anybody else it does not exist."""
    user = cast(User, request.user)
    mine = {} if second_factor.oversees(user, request.session, "tickets.view_ticket") else {"customer": user}
    return get_object_or_404(Ticket, pk=pk, **mine)


def own(request: HttpRequest, pk: UUID) -> Ticket:
    """A ticket that this customer may act on."""
    return get_object_or_404(Ticket, pk=pk, customer=cast(User, request.user))


@login_required
@require_POST
def pay(request: HttpRequest, pk: UUID) -> HttpResponse:
    """The transaction for the wallet, as JSON. That it was paid, only the chain's own event says."""
    throttle(request, "chain", CHAIN, "user")
    found = own(request, pk)
    call = actions.payment_call(found)
    funds.require(found.payer, micro=found.price)
    return wallet_request(call, found.payer)


@takes(lambda: settings.MAX_DATASET_BYTES)
@login_required
@require_POST
def upload(request: HttpRequest, pk: UUID) -> HttpResponse:
    throttle(request, "upload", UPLOADS, "user")
    found = own(request, pk)
    file = request.FILES.get("file")
    if file is None:
        raise Invalid("Please choose a file.")
    actions.upload(found, file, cast(User, request.user).email)
    if getattr(request, "htmx", False):
        return HttpResponse(status=HTTPStatus.NO_CONTENT)
    return redirect("tickets:ticket", pk)


@login_required
@require_POST
def cancel(request: HttpRequest, pk: UUID) -> HttpResponse:
    throttle(request, "cancel", CHANGES, "user")
    actions.cancel(own(request, pk), cast(User, request.user))
    messages.success(request, "The ticket was cancelled.")
    return redirect("tickets:ticket", pk)


def artifact(request: HttpRequest, token: str) -> HttpResponseBase:
    """A file by its signed link, which comes by mail and needs no login; 410 once it has run out."""
    throttle(request, "file", FILES, "ip")
    try:
        found = linked(token)
    except signing.SignatureExpired:
        return expired(request)
    if link := files.link(found.file.name, found.name):
        return HttpResponseRedirect(link, headers={"Cache-Control": "private, no-store"})
    return download(lambda: found.file.open("rb"), found.name, found.size)


@login_required
def everything(request: HttpRequest, pk: UUID) -> StreamingHttpResponse:
    """All files of a ticket in one ZIP. Raises Http404 if there are none."""
    throttle(request, "zip", "60/h", "user")
    found = list(visible(request, pk).artifacts.all())
    if not found:
        raise Http404
    headers = {
        "Content-Disposition": content_disposition_header(True, f"{str(pk)[:8]}.zip"),
        "Cache-Control": "private, no-store",
    }
    return StreamingHttpResponse(_parts(bundle.stream(found)), headers=headers, content_type="application/zip")


async def _parts(stream: Iterator[bytes]) -> AsyncIterator[bytes]:
    while (part := await sync_to_async(next)(stream, None)) is not None:
        yield part


def linked(token: str) -> Artifact:
    """The file that a signed link stands for. Raises SignatureExpired, Http404."""
    try:
        return get_object_or_404(Artifact, pk=mail.opened(token))
    except signing.SignatureExpired:
        raise
    except signing.BadSignature:
        raise Http404 from None


def expired(request: HttpRequest) -> HttpResponse:
    return render(request, "tickets/expired.html", {"days": settings.ARTIFACT_LINK_SECONDS // 86400}, status=410)


def download(opened: Callable[[], IO[bytes]], name: str, size: int) -> StreamingHttpResponse:
    headers: dict[str, Any] = {
        "Content-Disposition": content_disposition_header(True, name),
        "Content-Length": str(size),
        "Cache-Control": "private, no-store",
    }
    return StreamingHttpResponse(_chunks(opened), headers=headers, content_type="application/octet-stream")


async def _chunks(opened: Callable[[], IO[bytes]]) -> AsyncIterator[bytes]:
    """The file in parts: a large model is never held in memory as a whole."""
    file = await sync_to_async(opened)()
    try:
        while chunk := await sync_to_async(file.read)(CHUNK):
            yield chunk
    finally:
        file.close()
