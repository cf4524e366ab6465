"""Joining, the deposit and workers' keys over the API."""

from http import HTTPStatus
from typing import Any

from django.urls import path
from drf_spectacular.utils import extend_schema, inline_serializer
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from dmlsite.errors import Missing
from dmlsite.limits import CHAIN, CHANGES, throttle
from dmlsite.rest import AddressField, PreparedTransaction, answers, prepared
from ledger import money
from providers import actions
from providers.models import Provider

KEYS = "60/h"


class Me(serializers.ModelSerializer[Provider]):
    deposit = serializers.SerializerMethodField(help_text="In the native coin")

    class Meta:
        model = Provider
        fields = ["id", "user_name", "standing", "wallet", "deposit", "deposit_tx", "created"]

    def get_deposit(self, provider: Provider) -> str:
        return money.coin(provider.deposit_gwei)


class Join(serializers.Serializer[Any]):
    user_name = serializers.CharField(max_length=30)


class Deposit(serializers.Serializer[Any]):
    wallet = AddressField()


class KeyName(serializers.Serializer[Any]):
    name = serializers.CharField(max_length=60, default="worker")


def own(request: Request) -> Provider:
    """The caller's provider. Raises Missing for whoever has not joined."""
    found = Provider.objects.filter(user=request.user).first()
    if found is None:
        raise Missing("You have not joined as a provider.")
    return found


class ProviderView(APIView):
    @extend_schema(operation_id="provider", responses=answers({200: Me}, 401, 404))
    def get(self, request: Request) -> Response:
        """The caller as a provider. `standing` becomes active when the deposit's event is final."""
        return Response(Me(own(request)).data)

    @extend_schema(operation_id="provider_join", request=Join, responses=answers({201: Me}, 401, 403, 409, 422, 429))
    def post(self, request: Request) -> Response:
        """Reserve a user name; the deposit follows."""
        throttle(request, "join", CHANGES, "user")
        form = Join(data=request.data)
        form.is_valid(raise_exception=True)
        found = actions.join(request.user, form.validated_data["user_name"])
        return Response(Me(found).data, status=HTTPStatus.CREATED)


class DepositView(APIView):
    @extend_schema(
        operation_id="provider_deposit",
        request=Deposit,
        responses=answers({200: PreparedTransaction}, 401, 403, 404, 409, 422, 429, 503),
    )
    def post(self, request: Request) -> Response:
        """The transaction that locks the deposit, for this wallet to sign and send."""
        throttle(request, "chain", CHAIN, "user")
        found = own(request)
        form = Deposit(data=request.data)
        form.is_valid(raise_exception=True)
        wallet = form.validated_data["wallet"]
        return Response(prepared(actions.deposit_call(found, wallet), wallet))


WorkerKey = inline_serializer("WorkerKey", {"key": serializers.CharField(help_text="Shown this once")})


class KeysView(APIView):
    login_only = True

    @extend_schema(
        operation_id="provider_key", request=KeyName, responses=answers({201: WorkerKey}, 401, 403, 404, 409, 422, 429)
    )
    def post(self, request: Request) -> Response:
        """A new key for a worker. It is shown in this one answer and kept nowhere."""
        throttle(request, "keys", KEYS, "user")
        found = own(request)
        form = KeyName(data=request.data)
        form.is_valid(raise_exception=True)
        key = actions.issue_key(found, form.validated_data["name"])
        return Response({"key": key}, status=HTTPStatus.CREATED, headers={"Cache-Control": "no-store"})


urlpatterns = [
    path("provider", ProviderView.as_view()),
    path("provider/deposit", DepositView.as_view()),
    path("provider/keys", KeysView.as_view()),
]
