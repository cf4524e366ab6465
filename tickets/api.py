"""Quotes, tickets and their files over the API. Somebody else's ticket does not exist."""

from http import HTTPStatus
from typing import Any
from uuid import UUID

from django.conf import settings
from django.http import HttpResponseBase
from django.urls import path
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.parsers import MultiPartParser
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from accounts import actions as accounts
from dmlsite.bodies import takes
from dmlsite.errors import Missing
from dmlsite.limits import CHAIN, CHANGES, READS, throttle
from dmlsite.rest import AddressField, FiniteField, PlainJSONParser, PreparedTransaction, answers, prepared
from dmlworker import rewards
from dmlworker.aggregation import RULES
from dmlworker.datasets.options import KINDS
from ledger import money, pricing
from ledger.gateway import chain
from tickets import actions, direct, mail, preparing, uploads
from tickets.forms import (
    CLASS_WEIGHTS,
    COMPRESSIONS,
    MODELS,
    OPTIMIZERS,
    PRICES,
    REWARDS,
    SCHEDULES,
    SHARDINGS,
    STRATEGIES,
    OrderForm,
)
from tickets.models import DATA, Artifact, OnCheat, Search, Task, Ticket, TicketEvent
from tickets.ownmodels import OWN_MODELS
from tickets.views import UPLOADS, own_model_bytes

PAGE = 100
"""Tickets in one answer, at most."""


def _bounds(name: str) -> dict[str, Any]:
    """The same bounds and default as on the order page."""
    field: Any = OrderForm.base_fields[name]
    return {"min_value": field.min_value, "max_value": field.max_value, "default": field.initial}


class Order(serializers.Serializer[Any]):
    file_name = serializers.CharField(max_length=200)
    file_size = serializers.IntegerField(min_value=1, help_text="Bytes; a larger file is refused later")
    payer = AddressField(help_text="The only wallet that can pay the quote; a refund goes to no other")
    target = serializers.CharField(max_length=200, default="", allow_blank=True, help_text="CSV: the column to predict")
    model_kind = serializers.ChoiceField(MODELS, default="auto")
    rounds = serializers.IntegerField(**_bounds("rounds"))
    patience = serializers.IntegerField(**_bounds("patience"), help_text="0: never end early")
    epochs = serializers.IntegerField(**_bounds("epochs"))
    batch_size = serializers.IntegerField(**_bounds("batch_size"))
    optimizer = serializers.ChoiceField(OPTIMIZERS, default="sgd", help_text="Of the providers' steps")
    learning_rate = FiniteField(**_bounds("learning_rate"), help_text="adam needs about 0.001")
    search = serializers.ChoiceField(
        Search.choices,
        default=Search.OFF,
        help_text="on: try a few learning rates, and widths of the platform's own models, first; take the best",
    )
    schedule = serializers.ChoiceField(SCHEDULES, default="constant", help_text="The rate over the rounds")
    clip = FiniteField(
        **_bounds("clip"),
        allow_null=True,
        help_text="The norm of a step's gradient, at most; 0: any; null: by what is learnt",
    )
    rule = serializers.ChoiceField(list(RULES), default="mean")
    byzantine = serializers.IntegerField(**_bounds("byzantine"), help_text="Cheats that the rule is to withstand")
    strategy = serializers.ChoiceField(STRATEGIES, default="fedavg")
    proximal = FiniteField(**_bounds("proximal"), help_text="Only for fedprox")
    compression = serializers.ChoiceField(COMPRESSIONS, default="none")
    attested = serializers.BooleanField(
        default=False, help_text="Only workers that have proven what they run in get data"
    )
    on_cheat = serializers.ChoiceField(OnCheat.choices, default=OnCheat.REFUND, help_text="If a provider cheats")
    reward = serializers.ChoiceField(REWARDS, default=rewards.DEFAULT, help_text="How the providers are paid")
    seed = serializers.IntegerField(min_value=0, max_value=2**31 - 1, allow_null=True, default=None)
    model_file = serializers.FileField(
        required=False, max_length=200, help_text="A model of one's own, in place of model_kind: model.json or .keras"
    )
    model_weights = serializers.FileField(required=False, max_length=200, help_text="Its start weights: .weights.h5")
    task = serializers.ChoiceField(Task.choices, default=Task.AUTO, help_text="What to learn of the target")
    leave_out = serializers.ListField(
        child=serializers.CharField(), max_length=10_000, default=list, help_text="Columns that are no features"
    )
    kinds = serializers.DictField(
        child=serializers.ChoiceField(KINDS), default=dict, help_text="What a column is, where it is taken for another"
    )
    group = serializers.CharField(
        max_length=200, default="", allow_blank=True, help_text="The column that says which rows stay together"
    )
    window = serializers.IntegerField(**_bounds("window"), help_text="Rows that are one sample; 0: each is one")
    horizon = serializers.IntegerField(**_bounds("horizon"), help_text="Rows from a window's last to its target")
    sharding = serializers.ChoiceField(SHARDINGS, default="iid")
    class_weights = serializers.ChoiceField(CLASS_WEIGHTS, default="none")
    price_scheme = serializers.ChoiceField(PRICES, default=pricing.DEFAULT, help_text="How the price is made")
    samples = serializers.IntegerField(**_bounds("samples"), allow_null=True, help_text="In the file; for compute-1")
    sample_shape = serializers.ListField(
        child=serializers.IntegerField(min_value=1, max_value=10**9),
        max_length=3,
        default=list,
        help_text="Of what the model takes; for compute-1 without model_file",
    )
    outputs = serializers.IntegerField(
        **_bounds("outputs"),
        allow_null=True,
        help_text="Of the model, one for each class or label, 1 for a number; for compute-1 without model_file",
    )
    tokens = serializers.IntegerField(
        **_bounds("tokens"), allow_null=True, help_text="How many different ones, of nothing but text; for compute-1"
    )

    def to_internal_value(self, data: Any) -> Any:
        """A slip in an option's name is not passed over: it would be paid for."""
        if unknown := [name for name in data if name not in self.fields]:
            raise serializers.ValidationError({name: ["There is no such option."] for name in unknown})
        return super().to_internal_value(data)


class Event(serializers.ModelSerializer[TicketEvent]):
    class Meta:
        model = TicketEvent
        fields = ["at", "kind", "old", "new", "text"]


class Row(serializers.ModelSerializer[Ticket]):
    """A ticket as in the list. `price` is in DML, `price_micro` in 10^-6 DML. `task` is auto until the file was read; `accuracy` is its
    score: the accuracy, R² of a number, or macro F1 of labels."""

    price = serializers.SerializerMethodField()
    price_micro = serializers.IntegerField(source="price")

    class Meta:
        model = Ticket
        fields = ["id", "status", "file_name", "file_size", "target", "model_kind", "rounds", "patience", "epochs"]
        fields += [
            "batch_size",
            "optimizer",
            "learning_rate",
            "search",
            "schedule",
            "clip",
            "rule",
            "byzantine",
            "strategy",
            "proximal",
            "compression",
            "attested",
            "on_cheat",
            "reward",
            "seed",
            *DATA,
            "price_scheme",
            "samples",
            "flops",
            "flops_rate",
            "price",
            "price_micro",
            "payer",
            "pay_by",
            "upload_by",
            "settle_by",
            "paid_tx",
        ]
        fields += ["outcome", "accuracy", "created"]
        read_only_fields = fields

    def get_price(self, ticket: Ticket) -> str:
        return money.dml(ticket.price)


class Whole(Row):
    """A ticket with its timeline, oldest event first. `prepared`: how far the uploaded file is read and cut, 0 to 1; null if nobody is at it."""

    events = Event(many=True)
    prepared = serializers.SerializerMethodField()
    own_model = serializers.CharField(
        source="own_model.name", default=None, allow_null=True, help_text="The file's name, if there is one"
    )

    class Meta(Row.Meta):
        fields = [*Row.Meta.fields, "events", "prepared", "own_model"]

    def get_prepared(self, ticket: Ticket) -> float | None:
        return preparing.fraction(ticket)


class Quoted(Whole):
    """A fresh ticket with the transaction that pays for it."""

    payment = PreparedTransaction

    class Meta(Row.Meta):
        fields = [*Whole.Meta.fields, "payment"]


class Terms(serializers.Serializer[Any]):
    chain_id = serializers.IntegerField()
    token = serializers.CharField(help_text="DMLToken's address")
    escrow = serializers.CharField(help_text="DMLEscrow's address: payments go to no other")
    max_file_size = serializers.IntegerField(help_text="Bytes")


class Upload(serializers.Serializer[Any]):
    file = serializers.FileField(max_length=200, allow_empty_file=True)  # of an empty one the action says why not


class Download(serializers.ModelSerializer[Artifact]):
    url = serializers.SerializerMethodField(help_text="Signed; runs out, and is renewed by asking again")

    class Meta:
        model = Artifact
        fields = ["name", "size", "sha256", "url", "created"]

    def get_url(self, artifact: Artifact) -> str:
        return mail.link(artifact)


def own(request: Request, pk: UUID) -> Ticket:
    """The caller's ticket; anybody else's is missing."""
    found = Ticket.objects.filter(pk=pk, customer=request.user).first()
    if found is None:
        raise Missing("You have no such ticket.")
    return found


class TermsView(APIView):
    @extend_schema(operation_id="terms", responses=answers({200: Terms}, 401))
    def get(self, request: Request) -> Response:
        """Where payments go, and how large a file may be. Who keeps this can tell a payment to somewhere else."""
        found = chain().deployment
        kept = {"chain_id": found.chain_id, "token": found.token, "escrow": found.escrow}
        return Response(kept | {"max_file_size": settings.MAX_DATASET_BYTES})


@takes(own_model_bytes)
class QuotesView(APIView):
    parser_classes = (PlainJSONParser, MultiPartParser)

    @extend_schema(operation_id="quote", request=Order, responses=answers({201: Quoted}, 401, 403, 409, 422, 429, 503))
    def post(self, request: Request) -> Response:
        """Order training on a file of this size: a ticket with its price, and the transaction that pays for it."""
        throttle(request, "order", "60/h", "user")
        form = Order(data=request.data)
        form.is_valid(raise_exception=True)
        if "model_file" in form.validated_data:
            throttle(request, "own-model", OWN_MODELS, "user")
        found = actions.order(request.user, **form.validated_data)
        accounts.become(request.user, "customer")
        found.payment = prepared(actions.payment_call(found), found.payer)  # type: ignore[attr-defined]
        return Response(Quoted(found).data, status=HTTPStatus.CREATED)


class Paging(serializers.Serializer[Any]):
    limit = serializers.IntegerField(min_value=1, max_value=PAGE, default=PAGE)
    offset = serializers.IntegerField(min_value=0, max_value=10**6, default=0)


class TicketsView(APIView):
    @extend_schema(
        operation_id="tickets", parameters=[Paging], responses=answers({200: Row(many=True)}, 401, 422), filters=False
    )
    def get(self, request: Request) -> Response:
        """The caller's tickets, newest first."""
        form = Paging(data=request.query_params)
        form.is_valid(raise_exception=True)
        limit, offset = form.validated_data["limit"], form.validated_data["offset"]
        rows = Ticket.objects.filter(customer=request.user)[offset : offset + limit]
        return Response(Row(rows, many=True).data)


class TicketView(APIView):
    @extend_schema(operation_id="ticket", responses=answers({200: Whole}, 401, 404))
    def get(self, request: Request, pk: UUID) -> Response:
        """A ticket and its timeline. `status` is paid only when the chain has made the payment final."""
        return Response(Whole(own(request, pk)).data)


class PaymentView(APIView):
    @extend_schema(
        operation_id="ticket_payment",
        request=None,
        responses=answers({200: PreparedTransaction}, 401, 403, 404, 409, 429, 503),
    )
    def post(self, request: Request, pk: UUID) -> Response:
        """The transaction that pays, for the payer's wallet to sign and send."""
        throttle(request, "chain", CHAIN, "user")
        found = own(request, pk)
        return Response(prepared(actions.payment_call(found), found.payer))


@takes(lambda: settings.MAX_DATASET_BYTES)
class FileView(APIView):
    parser_classes = (MultiPartParser,)

    @extend_schema(
        operation_id="ticket_upload",
        request={"multipart/form-data": Upload},
        responses=answers({200: Whole}, 401, 403, 404, 409, 422, 429),
    )
    def post(self, request: Request, pk: UUID) -> Response:
        """Upload the data, once it is paid for. A file that is refused costs nothing; the right one may follow."""
        throttle(request, "upload", UPLOADS, "user")
        found = own(request, pk)
        form = Upload(data=request.data)
        form.is_valid(raise_exception=True)
        actions.upload(found, form.validated_data["file"], request.user.email)
        return Response(Whole(found).data)

    @extend_schema(
        operation_id="ticket_upload_put",
        request={"multipart/form-data": Upload},
        responses=answers({200: Whole}, 401, 403, 404, 409, 422, 429),
    )
    def put(self, request: Request, pk: UUID) -> Response:
        """The same as POST."""
        return self.post(request, pk)


class UploadsView(APIView):
    """The same file in parts: tus 1.0."""

    @extend_schema(operation_id="ticket_uploads_terms", request=None, responses=answers({204: None}, 401))
    def options(self, request: Request, pk: UUID) -> HttpResponseBase:
        """What of tus is spoken here."""
        return uploads.begin(request._request, pk)

    @extend_schema(
        operation_id="ticket_uploads",
        request=None,
        responses=answers({201: None, 412: None}, 401, 403, 404, 409, 422, 429),
    )
    def post(self, request: Request, pk: UUID) -> HttpResponseBase:
        """Begin (`Upload-Length`, `Upload-Metadata`); parts go to the address in `Location`."""
        return uploads.begin(request._request, pk, part="api_part")


class DirectBegin(serializers.Serializer[Any]):
    file_name = serializers.CharField(max_length=200)
    file_size = serializers.IntegerField(min_value=1)


class DirectParts(serializers.Serializer[Any]):
    token = serializers.CharField()
    numbers = serializers.ListField(child=serializers.IntegerField(min_value=1), max_length=direct.AT_ONCE)


class DirectLinks(serializers.Serializer[Any]):
    links = serializers.DictField(child=serializers.URLField(), help_text="By the part's number")
    here = serializers.ListField(child=serializers.IntegerField(), help_text="Parts that have come")


class DirectFinish(serializers.Serializer[Any]):
    token = serializers.CharField()
    sha256 = serializers.RegexField("^[0-9a-f]{64}$", default="", help_text="Of the whole file, to be compared")


class DirectBegun(serializers.Serializer[Any]):
    token = serializers.CharField(help_text="Of this upload, for a day")
    parts = serializers.IntegerField(help_text="How many, numbered from 1")
    part_size = serializers.IntegerField(help_text="Bytes of each but the last")


class DirectView(APIView):
    """The same file straight into the object store, where the platform has one."""

    @extend_schema(
        operation_id="ticket_direct",
        request=DirectBegin,
        responses=answers({201: DirectBegun}, 401, 404, 409, 422, 429),
    )
    def post(self, request: Request, pk: UUID) -> Response:
        """Begin. 409 where files go to the platform itself."""
        throttle(request._request, "upload", "60/h", "user")
        ticket, form = own(request, pk), DirectBegin(data=request.data)
        form.is_valid(raise_exception=True)
        begun = direct.begin(ticket, form.validated_data["file_name"], form.validated_data["file_size"])
        told = {"token": begun.token, "parts": begun.parts, "part_size": direct.PART}
        return Response(told, HTTPStatus.CREATED, headers={"Cache-Control": "no-store"})


class DirectPartsView(APIView):
    @extend_schema(
        operation_id="ticket_direct_parts",
        request=DirectParts,
        responses=answers({200: DirectLinks}, 401, 404, 409, 422, 429),
    )
    def post(self, request: Request, pk: UUID) -> Response:
        """Where to `PUT` these parts, each of just its size, for some minutes; and which ones are here."""
        throttle(request._request, "upload-links", "600/h", "user")
        ticket, form = own(request, pk), DirectParts(data=request.data)
        form.is_valid(raise_exception=True)
        found = direct.opened(ticket, form.validated_data["token"])
        told = {"links": direct.links(found, form.validated_data["numbers"]), "here": direct.here(found)}
        return Response(told, headers={"Cache-Control": "no-store"})


class DirectFinishView(APIView):
    @extend_schema(
        operation_id="ticket_direct_finish",
        request=DirectFinish,
        responses=answers({200: Whole}, 401, 404, 409, 422, 429),
    )
    def post(self, request: Request, pk: UUID) -> Response:
        """All parts are there. Their size and SHA-256 are looked at, then the ticket is `uploaded`."""
        throttle(request._request, "upload", "60/h", "user")
        ticket, form = own(request, pk), DirectFinish(data=request.data)
        form.is_valid(raise_exception=True)
        found = direct.opened(ticket, form.validated_data["token"])
        direct.finish(ticket, found, form.validated_data["sha256"], request.user.email)
        return Response(Whole(ticket).data)


@takes(lambda: uploads.MAX_PART)
class PartView(APIView):
    def _go_on(self, request: Request, pk: UUID) -> HttpResponseBase:
        return uploads.go_on(request._request, pk)

    @extend_schema(operation_id="upload_offset", request=None, responses=answers({200: None}, 401, 404))
    def head(self, request: Request, pk: UUID) -> HttpResponseBase:
        """`Upload-Offset`: how much is here."""
        return self._go_on(request, pk)

    @extend_schema(
        operation_id="upload_part",
        request={uploads.PART_TYPE: OpenApiTypes.BINARY},
        responses=answers({204: None, 412: None, 415: None}, 401, 403, 404, 409, 413, 422, 429),
    )
    def patch(self, request: Request, pk: UUID) -> HttpResponseBase:
        """The next part, from `Upload-Offset` on. With the last one the ticket is `uploaded`."""
        return self._go_on(request, pk)

    @extend_schema(operation_id="upload_drop", request=None, responses=answers({204: None}, 401, 404))
    def delete(self, request: Request, pk: UUID) -> HttpResponseBase:
        """Drop what was begun."""
        return self._go_on(request, pk)


class CancelView(APIView):
    @extend_schema(
        operation_id="ticket_cancel", request=None, responses=answers({200: Whole}, 401, 403, 404, 409, 429, 503)
    )
    def post(self, request: Request, pk: UUID) -> Response:
        """Cancel before training starts. What was paid goes back whole, to the wallet that paid."""
        throttle(request, "cancel", CHANGES, "user")
        found = own(request, pk)
        actions.cancel(found, request.user)
        return Response(Whole(found).data)


class ArtifactsView(APIView):
    @extend_schema(
        operation_id="ticket_artifacts", responses=answers({200: Download(many=True)}, 401, 404, 429), filters=False
    )
    def get(self, request: Request, pk: UUID) -> Response:
        """The model's files with fresh links; none before the ticket is settled."""
        throttle(request, "links", READS, "user")
        found = own(request, pk).artifacts.all()
        return Response(Download(found, many=True).data, headers={"Cache-Control": "no-store"})


urlpatterns = [
    path("terms", TermsView.as_view()),
    path("quotes", QuotesView.as_view()),
    path("tickets", TicketsView.as_view()),
    path("tickets/<uuid:pk>", TicketView.as_view()),
    path("tickets/<uuid:pk>/payment", PaymentView.as_view()),
    path("tickets/<uuid:pk>/file", FileView.as_view()),
    path("tickets/<uuid:pk>/uploads", UploadsView.as_view()),
    path("tickets/<uuid:pk>/direct", DirectView.as_view()),
    path("tickets/<uuid:pk>/direct/parts", DirectPartsView.as_view()),
    path("tickets/<uuid:pk>/direct/finish", DirectFinishView.as_view()),
    path("uploads/<uuid:pk>", PartView.as_view(), name="api_part"),
    path("tickets/<uuid:pk>/cancel", CancelView.as_view()),
    path("tickets/<uuid:pk>/artifacts", ArtifactsView.as_view()),
]
