"""Joining, the deposit, workers' keys and their attestations over the API."""

import binascii
from base64 import b64decode
from http import HTTPStatus
from typing import Any
from uuid import UUID

from django.urls import path
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.utils import extend_schema, inline_serializer
from rest_framework import serializers
from rest_framework.authentication import BaseAuthentication, get_authorization_header
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from accounts.models import User
from dmlsite.errors import Forbidden, Missing
from dmlsite.limits import CHAIN, CHANGES, throttle
from dmlsite.rest import AddressField, PreparedTransaction, answers, prepared
from dmlworker.snp import SIZE
from ledger import money
from providers import actions, attestations, snp
from providers.models import Attestation, Provider

KEYS = "60/h"
ATTESTATIONS = "600/h"
"""Questions and answers of one provider's workers: each has two in half a day, and at each start."""


class Me(serializers.ModelSerializer[Provider]):
    deposit = serializers.SerializerMethodField(help_text="In the native coin")
    attested = serializers.SerializerMethodField(help_text="Until when a worker's attestation holds; null: none does")

    class Meta:
        model = Provider
        fields = ["id", "user_name", "standing", "wallet", "deposit", "deposit_tx", "attested", "created"]

    def get_attested(self, provider: Provider) -> str | None:
        found = attestations.current(provider)
        return found.expires.isoformat() if found and found.expires else None

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


# --- Attestations -----------------------------------------------------------------------------------------------------
class WorkerAuthentication(BaseAuthentication):
    """What a worker's socket takes: a worker's key, or a sign-in by its provider's wallet. `request.auth` is the provider."""

    def authenticate(self, request: Request) -> tuple[User, Provider] | None:
        scheme, _, token = get_authorization_header(request).decode("latin-1").partition(" ")
        if scheme != "Bearer":
            return None
        try:
            found = actions.worker_of(token)
        except Forbidden as error:
            raise AuthenticationFailed(str(error)) from None
        return found.user, found

    def authenticate_header(self, request: Request) -> str:
        return "Bearer"


class WorkerScheme(OpenApiAuthenticationExtension):
    """The same for the OpenAPI schema."""

    target_class = WorkerAuthentication
    name = "workerKey"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        return {"type": "http", "scheme": "bearer"}


class Asked(serializers.ModelSerializer[Attestation]):
    """What a report has to be made for: `attestation_data` in dmlworker/protocol.py makes its REPORT_DATA of it."""

    wallet = serializers.CharField(source="provider.wallet")
    site = serializers.SerializerMethodField()

    class Meta:
        model = Attestation
        fields = ["id", "nonce", "wallet", "site"]

    def get_site(self, attestation: Attestation) -> str:
        return attestations.site()


class Base64Field(serializers.CharField):
    """Bytes, at most so many."""

    def __init__(self, most: int, **options: Any) -> None:
        super().__init__(max_length=4 * -(-most // 3), **options)

    def to_internal_value(self, data: Any) -> bytes:
        try:
            return b64decode(super().to_internal_value(data), validate=True)
        except (binascii.Error, ValueError):
            raise serializers.ValidationError("This is not base64.") from None


class Evidence(serializers.Serializer[Any]):
    report = Base64Field(SIZE, help_text="An AMD SEV-SNP attestation report, base64")
    certificate = Base64Field(snp.MOST_BYTES, help_text="Of the key that signed it, PEM or DER, base64")
    session = serializers.RegexField(r"^[0-9a-f]{64}$", help_text="SHA-256 of the worker's secret")


class Attested(serializers.ModelSerializer[Attestation]):
    measurement = serializers.CharField(source="measurement.value")

    class Meta:
        model = Attestation
        fields = ["id", "state", "product", "tcb", "measurement", "presented", "expires"]


class AttestationsView(APIView):
    authentication_classes = (WorkerAuthentication,)

    @extend_schema(
        operation_id="attestation_ask", request=None, responses=answers({201: Asked}, 401, 409, 429), methods=["POST"]
    )
    def post(self, request: Request) -> Response:
        """For a worker: a nonce, good for five minutes and one report."""
        throttle(request, "attest", ATTESTATIONS, "user")
        return Response(Asked(attestations.ask(request.auth)).data, status=HTTPStatus.CREATED)


class AttestationView(APIView):
    authentication_classes = (WorkerAuthentication,)

    @extend_schema(
        operation_id="attestation_present",
        request=Evidence,
        responses=answers({200: Attested}, 401, 404, 409, 422, 429),
    )
    def post(self, request: Request, pk: UUID) -> Response:
        """The report that was made for the nonce. 422 says what it does not prove; the nonce is used up in any case."""
        throttle(request, "attest", ATTESTATIONS, "user")
        form = Evidence(data=request.data)
        form.is_valid(raise_exception=True)
        return Response(Attested(attestations.present(request.auth, pk, **form.validated_data)).data)


urlpatterns = [
    path("provider/attestations", AttestationsView.as_view()),
    path("provider/attestations/<uuid:pk>", AttestationView.as_view()),
    path("provider", ProviderView.as_view()),
    path("provider/deposit", DepositView.as_view()),
    path("provider/keys", KeysView.as_view()),
]
