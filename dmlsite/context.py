"""What every template may use."""

from django.conf import settings
from django.http import HttpRequest


def site(request: HttpRequest) -> dict[str, object]:
    return {
        "development": settings.DEVELOPMENT,
        "dev_wallet": settings.DEV_WALLET,
        "chain_id": settings.CHAIN_ID,
        "explorer": settings.CHAIN_EXPLORER,
    }
