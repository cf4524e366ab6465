"""Blobs over HTTP for workers: `GET` with byte ranges, `PUT` for updates. A worker gets what its leases name, no more."""

import re
from collections.abc import AsyncIterator
from http import HTTPStatus

from asgiref.sync import sync_to_async
from channels.db import database_sync_to_async
from django.http import HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect, StreamingHttpResponse
from django.views.decorators.csrf import csrf_exempt

from dmlsite.errors import DomainError, Forbidden
from providers.actions import worker_of
from providers.models import Provider
from training import actions, store
from training.models import Blob

RANGE = re.compile(r"bytes=(\d+)-(\d*)")


@csrf_exempt
async def serve(request: HttpRequest, sha256: str) -> HttpResponseBase:
    """The one door for workers' bytes; shown an API key, never a cookie."""
    try:
        if request.method == "PUT":
            return await database_sync_to_async(_take)(request, sha256)
        if request.method == "GET":
            blob = await database_sync_to_async(_find)(request, sha256)
            if link := await sync_to_async(store.link)(blob.sha256):
                return HttpResponseRedirect(link)
            return _send(blob, request.headers.get("Range", ""))
    except DomainError as error:
        return HttpResponse(str(error), status=error.status, content_type="text/plain")
    return HttpResponse(status=HTTPStatus.METHOD_NOT_ALLOWED)


def _provider(request: HttpRequest) -> Provider:
    scheme, _, key = request.headers.get("Authorization", "").partition(" ")
    if scheme != "Bearer":
        raise Forbidden("An API key is needed: Authorization: Bearer KEY")
    return worker_of(key)


def _find(request: HttpRequest, sha256: str) -> Blob:
    return actions.readable_blob(_provider(request), sha256)


def _take(request: HttpRequest, sha256: str) -> HttpResponse:
    provider = _provider(request)
    limit = actions.upload_limit(provider)
    if int(request.headers.get("Content-Length") or 0) > limit:
        raise store.TooLarge(f"at most {limit} bytes are taken here")
    known = Blob.objects.filter(pk=sha256).exists()
    store.take(sha256, iter(lambda: request.read(store.CHUNK), b""), limit)
    return HttpResponse(status=HTTPStatus.OK if known else HTTPStatus.CREATED)


def _send(blob: Blob, wanted: str) -> HttpResponseBase:
    first, last = 0, blob.size - 1
    if found := RANGE.fullmatch(wanted):
        first, last = int(found[1]), min(int(found[2] or last), last)
        if first > last:
            return HttpResponse(status=416, headers={"Content-Range": f"bytes */{blob.size}"})
    headers = {
        "Content-Type": "application/octet-stream",
        "Content-Length": str(last - first + 1),
        "Accept-Ranges": "bytes",
        "ETag": f'"{blob.sha256}"',
    }
    if found:
        headers["Content-Range"] = f"bytes {first}-{last}/{blob.size}"
    body = _chunks(blob.sha256, first, last - first + 1)
    return StreamingHttpResponse(body, status=206 if found else 200, headers=headers)


async def _chunks(sha256: str, first: int, count: int) -> AsyncIterator[bytes]:
    file = await sync_to_async(store.opened)(sha256)
    try:
        file.seek(first)
        while count > 0 and (chunk := await sync_to_async(file.read)(min(store.CHUNK, count))):
            count -= len(chunk)
            yield chunk
    finally:
        file.close()
