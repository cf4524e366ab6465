"""How training goes on, over the API."""

from uuid import UUID

from django.urls import path
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from dmlsite.rest import answers
from tickets.api import own
from training.models import Round


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


urlpatterns = [path("tickets/<uuid:pk>/rounds", RoundsView.as_view())]
