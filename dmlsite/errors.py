"""Domain errors, and the one place where they become an HTTP answer."""

import logging
from collections.abc import Callable
from http import HTTPStatus

from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from rest_framework.exceptions import ValidationError
from rest_framework.response import Response
from rest_framework.views import exception_handler, set_rollback

from contracts.chain import ChainError

log = logging.getLogger(__name__)


class DomainError(Exception):
    """Something the caller can understand and mend. `str(error)` is shown to people."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY


class Invalid(DomainError):
    """The input cannot be used (422). `field`: the name of the one that it is about, if it is one, as forms and the API have it."""

    def __init__(self, text: str, field: str | None = None) -> None:
        super().__init__(text)
        self.field = field


class Forbidden(DomainError):
    """The caller may not do this (403)."""

    status = HTTPStatus.FORBIDDEN


class Missing(DomainError):
    """There is no such thing, or it is none of the caller's business (404)."""

    status = HTTPStatus.NOT_FOUND


class Conflict(DomainError):
    """The thing is in a state that does not allow this (409)."""

    status = HTTPStatus.CONFLICT


def status_of(error: Exception) -> HTTPStatus | None:
    """The HTTP status that an error of ours means; None for a bug."""
    if isinstance(error, DomainError):
        return error.status
    return HTTPStatus.SERVICE_UNAVAILABLE if isinstance(error, ChainError) else None


def message(error: Exception) -> str:
    """What people are told: a domain error's own words; of the chain only that it does not answer."""
    if isinstance(error, DomainError):
        return str(error)
    log.warning("chain: %s", error)  # its silence has an alarm of its own
    return "The chain does not answer at the moment. Nothing was lost; please try again in a minute."


def nul_is_missing(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """No address of ours has a NUL in it, and the database takes none: whoever asks for one asks for nothing."""

    def answer(request: HttpRequest) -> HttpResponse:
        if "\0" in request.path or "%00" in request.META.get("QUERY_STRING", ""):
            return HttpResponse("There is no such page.", status=HTTPStatus.NOT_FOUND, content_type="text/plain")
        return get_response(request)

    return answer


class DomainErrorMiddleware:
    """Turns a domain error raised by a page into a page (or an htmx fragment) with the right status."""

    def __init__(self, get_response):  # type: ignore[no-untyped-def]
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self.get_response(request)

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        status = status_of(error)
        if status is None:
            return None
        name = "_error.html" if getattr(request, "htmx", False) else "error.html"
        return render(request, name, {"message": message(error), "status": status}, status=status)


def problem(status: int, detail: object, **more: object) -> Response:
    """An RFC 9457 problem document."""
    body = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": int(status), "detail": detail, **more}
    return Response(body, status=status, content_type="application/problem+json")


def problem_response(error: Exception, context: dict[str, object]) -> Response | None:
    """DRF's exception handler: every error of the API is a problem document; what is not valid is 422."""
    status = status_of(error)
    if status is not None:
        set_rollback()
        out = problem(status, message(error))
        if status == HTTPStatus.UNAUTHORIZED:  # RFC 9110 wants to hear how to log in
            out["WWW-Authenticate"] = "Token"
        return out
    answer = exception_handler(error, context)
    return None if answer is None else _as_problem(error, answer)


def _as_problem(error: Exception, answer: Response) -> Response:
    """DRF's own answer, told as a problem document, with its headers."""
    if not isinstance(error, ValidationError):
        out = problem(answer.status_code, str(answer.data["detail"]))
    elif isinstance(answer.data, dict):
        out = problem(HTTPStatus.UNPROCESSABLE_ENTITY, "Some fields are not valid.", errors=answer.data)
    else:
        out = problem(HTTPStatus.UNPROCESSABLE_ENTITY, "; ".join(map(str, answer.data)))
    for header in ("WWW-Authenticate", "Retry-After"):
        if header in answer.headers:
            out[header] = answer.headers[header]
    return out


__all__ = ["Conflict", "DomainError", "Forbidden", "Http404", "Invalid", "Missing", "PermissionDenied"]
