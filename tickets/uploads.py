"""A customer's file in parts, so that an upload that broke is gone on with: tus 1.0 with its extensions creation and termination
(https://tus.io/protocols/resumable-upload).

Each `PATCH` becomes a file of its own in the store, so that it does not matter which server takes the next one. With the last
one they are put together, and what a plain upload does is done.
"""

import base64
import binascii
from collections.abc import Callable
from http import HTTPStatus
from typing import cast
from uuid import UUID

from django.conf import settings
from django.contrib.auth.decorators import login_required
from django.core.files.base import ContentFile
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase
from django.urls import reverse
from django.views.decorators.cache import never_cache

from accounts.models import User
from dmlsite.bodies import takes
from dmlsite.errors import DomainError, Invalid
from dmlsite.limits import PARTS, throttle
from tickets import actions
from tickets.models import PartialUpload
from tickets.views import UPLOADS, own

VERSION = "1.0.0"
MAX_PART = 16 * 10**6
"""Bytes of a `PATCH`: so much of it is in memory."""
PART_TYPE = "application/offset+octet-stream"


class TooLarge(DomainError):
    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE


def _speaks_tus(view: Callable[..., HttpResponse]) -> Callable[..., HttpResponseBase]:
    """Every answer names the version; who speaks another one is told which we speak."""

    @never_cache
    def answer(request: HttpRequest, pk: UUID, **more: str) -> HttpResponse:
        if request.method != "OPTIONS" and request.headers.get("Tus-Resumable") != VERSION:
            found = HttpResponse(status=HTTPStatus.PRECONDITION_FAILED, headers={"Tus-Version": VERSION})
        else:
            found = view(request, pk, **more)
        found.headers["Tus-Resumable"] = VERSION
        return found

    return answer


@_speaks_tus
def begin(request: HttpRequest, pk: UUID, part: str = "tickets:part") -> HttpResponse:
    """`OPTIONS`: what we can do. `POST`: begin an upload for the ticket; the one that was begun before is dropped. part: the name of
    the address that takes it."""
    if request.method == "OPTIONS":
        said = {"Tus-Version": VERSION, "Tus-Extension": "creation,termination"}
        return _done(**said, **{"Tus-Max-Size": str(settings.MAX_DATASET_BYTES)})
    if request.method != "POST":
        return HttpResponse(status=HTTPStatus.METHOD_NOT_ALLOWED, headers={"Allow": "OPTIONS, POST"})
    throttle(request, "upload", UPLOADS, "user")
    ticket = own(request, pk)
    begun = actions.begin_upload(ticket, _name(request), _number(request, "Upload-Length"))
    place = reverse(part, args=[begun.pk])
    return HttpResponse(status=HTTPStatus.CREATED, headers={"Location": place, "Upload-Offset": "0"})


@_speaks_tus
def go_on(request: HttpRequest, pk: UUID) -> HttpResponse:
    """`HEAD`: how much is here. `PATCH`: the next part. `DELETE`: drop it."""
    throttle(request, "upload-part", PARTS, "user")
    user = cast(User, request.user)
    found = PartialUpload.objects.filter(pk=pk, ticket__customer=user).select_related("ticket").first()
    if found is None:
        raise Http404
    if request.method == "HEAD":
        sizes = {"Upload-Offset": str(found.offset), "Upload-Length": str(found.size)}
        return HttpResponse(status=HTTPStatus.OK, headers=sizes)
    if request.method == "PATCH":
        if request.content_type != PART_TYPE:
            return HttpResponse(status=HTTPStatus.UNSUPPORTED_MEDIA_TYPE)
        content = request.read(MAX_PART + 1)
        if len(content) > MAX_PART:
            raise TooLarge(f"A part has at most {MAX_PART:,} bytes.")
        offset = actions.add_part(found, _number(request, "Upload-Offset"), ContentFile(content), user.email)
        return _done(**{"Upload-Offset": str(offset)})
    if request.method == "DELETE":
        actions.drop_upload(found)
        return _done()
    return HttpResponse(status=HTTPStatus.METHOD_NOT_ALLOWED, headers={"Allow": "HEAD, PATCH, DELETE"})


uploads, part = login_required(begin), takes(lambda: MAX_PART)(login_required(go_on))
"""For pages; the API has its own way to log in."""


def _done(**headers: str) -> HttpResponse:
    return HttpResponse(status=HTTPStatus.NO_CONTENT, headers=headers)


def _number(request: HttpRequest, header: str) -> int:
    text = request.headers.get(header, "")
    if not (text.isascii() and text.isdecimal() and len(text) < 20):
        raise Invalid(f"{header} is a number of bytes.")
    return int(text)


def _name(request: HttpRequest) -> str:
    """From Upload-Metadata: pairs of a key and its value in base64."""
    for pair in request.headers.get("Upload-Metadata", "").split(","):
        key, _, value = pair.strip().partition(" ")
        if key == "filename":
            try:
                name = base64.b64decode(value, validate=True).decode()
            except (binascii.Error, UnicodeDecodeError):
                raise Invalid("The file's name can't be read.") from None
            return "".join(filter(str.isprintable, name))  # as Django reads that of a plain upload
    return ""
