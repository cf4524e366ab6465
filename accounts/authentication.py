"""A program's key, in the header `Authorization: Bearer dml_…`."""

from typing import Any

from drf_spectacular.extensions import OpenApiAuthenticationExtension
from rest_framework.authentication import TokenAuthentication
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.permissions import SAFE_METHODS, BasePermission
from rest_framework.request import Request

from accounts.models import ApiKey, User


class KeyAuthentication(TokenAuthentication):
    """The key that its owner made on the account page, and can revoke alone. `request.auth` is its row."""

    keyword = "Bearer"

    def authenticate_credentials(self, key: str) -> tuple[User, Any]:
        found = ApiKey.valid(key, *ApiKey.PROGRAMS).select_related("user").first()
        if found is None:
            raise AuthenticationFailed("This key is not known, or it was revoked.")
        ApiKey.touch(found)
        return found.user, found


class KeyScope(BasePermission):
    """What a program's key opens. A view with `login_only` is closed to all keys: whoever got hold of one would outlive its end."""

    def has_permission(self, request: Request, view: Any) -> bool:
        if not isinstance(request.auth, ApiKey):
            return True
        if getattr(view, "login_only", False):
            self.message = "A key can't do this. Log in, or use your account page."
            return False
        self.message = "This key only reads. Make one that orders too."
        return request.auth.use == ApiKey.Use.CLIENT or request.method in SAFE_METHODS


class KeyScheme(OpenApiAuthenticationExtension):
    """The same for the OpenAPI schema."""

    target_class = KeyAuthentication
    name = "keyAuth"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        return {"type": "http", "scheme": "bearer"}
