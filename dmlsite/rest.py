"""What every part of the API shares: field types, the prepared transaction, the description of errors."""

import io
import json
import math
from typing import IO, Any

from django.conf import settings
from drf_spectacular.utils import OpenApiResponse, inline_serializer
from rest_framework import serializers
from rest_framework.exceptions import ParseError
from rest_framework.parsers import JSONParser

from contracts.chain import Call, ChainError, to_checksum
from dmlworker.protocol import nesting

STATUSES = {
    401: "Not logged in.",
    403: "Not allowed.",
    404: "There is no such thing, or it is none of the caller's business.",
    409: "Its state does not allow this.",
    413: "More bytes than are taken at once.",
    422: "The input cannot be used; `errors` names the fields, where there are any.",
    429: "Too many attempts.",
    503: "The chain does not answer; nothing was lost.",
}


DEEPEST = 20
"""Brackets within brackets; an order needs three."""


class PlainJSONParser(JSONParser):
    """JSON that can be read without end of the stack, and whose text can be kept: no brackets in brackets for ever, no half characters."""

    def parse(self, stream: IO[bytes], media_type: str | None = None, parser_context: Any = None) -> Any:
        try:
            text = stream.read().decode()
            if nesting(text) > DEEPEST:
                raise ParseError("JSON parse error: nested too deep")
            found = super().parse(io.BytesIO(text.encode()), media_type, parser_context)
            if "\\ud" in text.lower():  # half of a character, maybe, which nothing can write down
                json.dumps(found, ensure_ascii=False).encode()
        except UnicodeError:
            raise ParseError("JSON parse error: not Unicode") from None
        return found


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
