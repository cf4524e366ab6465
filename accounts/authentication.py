"""A program's key, in the header `Authorization: Bearer dml_…`."""

from typing import Any

from drf_spectacular.extensions import OpenApiAuthenticationExtension
from rest_framework.authentication import TokenAuthentication
from rest_framework.exceptions import AuthenticationFailed

from accounts.models import ApiKey, User


class KeyAuthentication(TokenAuthentication):
    """The key that its owner made on the account page, and can revoke alone. `request.auth` is its row."""

    keyword = "Bearer"

    def authenticate_credentials(self, key: str) -> tuple[User, Any]:
        found = ApiKey.valid(key, ApiKey.Use.CLIENT).select_related("user").first()
        if found is None:
            raise AuthenticationFailed("This key is not known, or it was revoked.")
        return found.user, found


class KeyScheme(OpenApiAuthenticationExtension):
    """The same for the OpenAPI schema."""

    target_class = KeyAuthentication
    name = "keyAuth"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        return {"type": "http", "scheme": "bearer"}
