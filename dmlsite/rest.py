"""What every part of the API shares: field types, the prepared transaction, the description of errors."""

import math
from typing import Any

from django.conf import settings
from drf_spectacular.utils import OpenApiResponse, inline_serializer
from rest_framework import serializers

from contracts.chain import Call, ChainError, to_checksum

STATUSES = {
    401: "Not logged in.",
    403: "Not allowed.",
    404: "There is no such thing, or it is none of the caller's business.",
    409: "Its state does not allow this.",
    422: "The input cannot be used; `errors` names the fields, where there are any.",
    429: "Too many attempts.",
    503: "The chain does not answer; nothing was lost.",
}


class Problem(serializers.Serializer[Any]):
    """RFC 9457."""

    type = serializers.CharField()
    title = serializers.CharField()
    status = serializers.IntegerField()
    detail = serializers.CharField()
    errors = serializers.DictField(required=False, help_text="Field -> what is wrong with it")


def answers(success: dict[int, Any], *problems: int) -> dict[Any, Any]:
    """The `responses` of extend_schema: what is given on success, and which problems there may be."""
    told = {(code, "application/problem+json"): OpenApiResponse(Problem, STATUSES[code]) for code in problems}
    return {**success, **told}


PreparedTransaction = inline_serializer(
    "PreparedTransaction",
    {
        "from": serializers.CharField(help_text="The wallet that has to sign"),
        "to": serializers.CharField(),
        "data": serializers.CharField(),
        "value": serializers.CharField(help_text="Native coin, hexadecimal"),
        "chainId": serializers.CharField(help_text="Hexadecimal"),
    },
)
"""The parameter of a wallet's eth_sendTransaction."""


def prepared(call: Call, sender: str) -> dict[str, str]:
    return call.for_wallet(sender, settings.CHAIN_ID)


class AddressField(serializers.CharField):
    """A wallet's address, given in any case or with a right checksum, kept in its one spelling."""

    def __init__(self, **options: Any) -> None:
        super().__init__(max_length=42, **options)

    def to_internal_value(self, data: Any) -> str:
        try:
            return str(to_checksum(super().to_internal_value(data)))
        except ChainError:
            raise serializers.ValidationError("This is not a wallet's address.") from None


class FiniteField(serializers.FloatField):
    """A number; "nan" would pass every bound."""

    def to_internal_value(self, data: Any) -> float:
        value = super().to_internal_value(data)
        if not math.isfinite(value):
            raise serializers.ValidationError("A valid number is required.")
        return float(value)
