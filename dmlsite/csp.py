"""What a browser may load and run for our pages: our own files. No inline script or style, no frame around us."""

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse

POLICY = "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"


class PolicyMiddleware:
    """The first of all, so that every answer has it: pages, errors, the admin, the API and static files."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        answer = self.get_response(request)
        answer.headers["Content-Security-Policy"] = POLICY
        return answer
