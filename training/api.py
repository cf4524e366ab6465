"""How training goes on, over the API."""

from http import HTTPStatus
from typing import Any, cast
from uuid import UUID

from django.conf import settings
from django.urls import path
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.parsers import MultiPartParser
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from accounts.models import User
from dmlsite.bodies import takes
from dmlsite.limits import CHANGES, throttle
from dmlsite.rest import answers
from tickets.api import own
from training import measures, retention
from training.models import Round, Run
from training.views import CHECKS, facts_of, said


class RoundRow(serializers.ModelSerializer[Round]):
    """`accuracy`, the score of what the ticket learns (0..1; R² of a number may be below 0), and `loss` are measured on data that no provider saw, when the round is closed."""

    class Meta:
        model = Round
        fields = ["number", "state", "accuracy", "loss", "opened", "closed"]


class RoundsView(APIView):
    @extend_schema(operation_id="ticket_rounds", responses=answers({200: RoundRow(many=True)}, 401, 404), filters=False)
    def get(self, request: Request, pk: UUID) -> Response:
        """The rounds so far, first to last."""
        rounds = Round.objects.filter(run__ticket=own(request, pk))
        return Response(RoundRow(rounds, many=True).data)


class MetricRow(serializers.Serializer[Any]):
    """A measure of the final model on the hold-out, with its 95 % confidence interval; all null where it is not defined."""

    name = serializers.CharField()
    value, low, high = (serializers.FloatField(allow_null=True) for _ in range(3))


class MetricsView(APIView):
    @extend_schema(
        operation_id="ticket_metrics", responses=answers({200: MetricRow(many=True)}, 401, 404), filters=False
    )
    def get(self, request: Request, pk: UUID) -> Response:
        """How good the model is, measured when training has ended; none before."""
        kept = Run.objects.filter(ticket=own(request, pk)).values_list("metrics", flat=True).first() or {}
        names = [name for name in measures.TITLES if name in kept]
        rows = [dict(zip(("name", "value", "low", "high"), (name, *kept[name]), strict=True)) for name in names]
        return Response(MetricRow(rows, many=True).data)


class DataView(APIView):
    @extend_schema(operation_id="ticket_erase", request=None, responses=answers({204: None}, 401, 404, 409, 429))
    def delete(self, request: Request, pk: UUID) -> Response:
        """Erase the uploaded file, and the parts cut of it, before their time. The ticket has ended; the model stays."""
        throttle(request, "erase", CHANGES, "user")
        retention.erase(own(request, pk), cast(User, request.user).email)
        return Response(status=HTTPStatus.NO_CONTENT)


class CheckedFile(serializers.Serializer[Any]):
    file = serializers.FileField(max_length=200, allow_empty_file=True)  # of an empty one the check says why not
    target = serializers.CharField(max_length=200, default="", allow_blank=True)


@takes(lambda: settings.MAX_CHECK_BYTES)
class CheckView(APIView):
    parser_classes = (MultiPartParser,)

    @extend_schema(
        operation_id="check",
        request={"multipart/form-data": CheckedFile},
        responses=answers({200: OpenApiTypes.OBJECT}, 401, 422, 429),
    )
    def post(self, request: Request) -> Response:
        """What training would find in the file. It is not kept, and nothing is charged."""
        throttle(request, "check", CHECKS, "user")
        form = CheckedFile(data=request.data)
        form.is_valid(raise_exception=True)
        given = form.validated_data
        return Response(facts_of(given["file"], given["target"].strip(), said(request.data)).json())


urlpatterns = [
    path("check", CheckView.as_view()),
    path("tickets/<uuid:pk>/data", DataView.as_view()),
    path("tickets/<uuid:pk>/metrics", MetricsView.as_view()),
    path("tickets/<uuid:pk>/rounds", RoundsView.as_view()),
]
