"""Registering, logging in and out over the API."""

from http import HTTPStatus
from typing import Any

from django.conf import settings
from django.contrib.auth import authenticate
from django.urls import path
from drf_spectacular.utils import extend_schema, inline_serializer
from rest_framework import serializers
from rest_framework.authtoken.models import Token
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from accounts import actions, sessions
from accounts.models import User
from dmlsite.errors import DomainError
from dmlsite.limits import CHANGES, spelled, throttle
from dmlsite.rest import answers

NEWCOMERS = "60/h"
"""Accounts that one address may open."""

KEYS = "60/h"
"""Keys that one person may make."""

GUESSES = "100/5m"
"""Log-ins from one address; an office or a script has many people behind one. Per person it is LOGIN_RATE."""


class WrongLogin(DomainError):
    """E-mail address and password do not belong together (401)."""

    status = HTTPStatus.UNAUTHORIZED


class Secret(serializers.CharField):
    """A password: taken as it is, never given back."""

    def __init__(self) -> None:
        super().__init__(max_length=1000, trim_whitespace=False, write_only=True, style={"input_type": "password"})


class Registration(serializers.Serializer[Any]):
    email = serializers.CharField(max_length=254)
    password = Secret()
    kind = serializers.ChoiceField(sorted(actions.KINDS))


class Account(serializers.ModelSerializer[User]):
    class Meta:
        model = User
        fields = ["email", "confirmed", "is_customer", "is_provider"]


class Credentials(serializers.Serializer[Any]):
    email = serializers.CharField(max_length=254)
    password = Secret()


class Register(APIView):
    authentication_classes = ()
    permission_classes = (AllowAny,)

    @extend_schema(operation_id="register", request=Registration, responses=answers({201: Account}, 422, 429))
    def post(self, request: Request) -> Response:
        """Open an account as a customer or a provider; one may become the other as well later."""
        throttle(request, "api-register", NEWCOMERS, "ip")
        form = Registration(data=request.data)
        form.is_valid(raise_exception=True)
        user = actions.register(**form.validated_data)
        return Response(Account(user).data, status=HTTPStatus.CREATED)


LoginToken = inline_serializer("LoginToken", {"token": serializers.CharField(help_text="Authorization: Token …")})


class Login(APIView):
    authentication_classes = ()
    permission_classes = (AllowAny,)

    @extend_schema(operation_id="login", request=Credentials, responses=answers({200: LoginToken}, 401, 422, 429))
    def post(self, request: Request) -> Response:
        """The token for the header `Authorization: Token …`; the same one until somebody logs out."""
        throttle(request, "api-login-address", GUESSES, "ip")
        form = Credentials(data=request.data)
        form.is_valid(raise_exception=True)
        email = spelled(form.validated_data["email"])
        throttle(request, "login", settings.LOGIN_RATE, lambda group, request: email)  # counted with the page's
        user = authenticate(request, username=email, password=form.validated_data["password"])
        if user is None:
            raise WrongLogin("This e-mail address and password do not match an account.")
        sessions.told(request, user)
        token, _ = Token.objects.get_or_create(user=user)
        return Response({"token": token.key})


class Logout(APIView):
    login_only = True

    @extend_schema(operation_id="logout", request=None, responses=answers({204: None}, 401, 403, 429))
    def post(self, request: Request) -> Response:
        """The token no longer works, wherever it is in use."""
        throttle(request, "revoke", CHANGES, "user")
        actions.end_tokens(request.user)
        return Response(status=HTTPStatus.NO_CONTENT)


class ClientKeyName(serializers.Serializer[Any]):
    name = serializers.CharField(max_length=60, default="my program")
    scope = serializers.ChoiceField(sorted(actions.SCOPES), default="order", help_text="order: reads too")


ClientKey = inline_serializer("ClientKey", {"key": serializers.CharField(help_text="Shown this once")})


class KeysView(APIView):
    login_only = True

    @extend_schema(operation_id="key", request=ClientKeyName, responses=answers({201: ClientKey}, 401, 403, 422, 429))
    def post(self, request: Request) -> Response:
        """A new key for a program: `Authorization: Bearer …`. It is shown in this one answer and kept nowhere."""
        throttle(request, "keys", KEYS, "user")
        form = ClientKeyName(data=request.data)
        form.is_valid(raise_exception=True)
        key = actions.issue_key(request.user, **form.validated_data)
        return Response({"key": key}, status=HTTPStatus.CREATED, headers={"Cache-Control": "no-store"})


urlpatterns = [
    path("keys", KeysView.as_view()),
    path("register", Register.as_view()),
    path("login", Login.as_view()),
    path("logout", Logout.as_view()),
]
