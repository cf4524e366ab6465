"""What holds for the whole API."""

import pytest
from django.core.management import call_command
from django.urls import URLResolver, get_resolver

from dmlsite.tests.people import api, person, problem

OPEN = {"api/v1/register", "api/v1/login"}


def endpoints(resolver=None, prefix=""):
    """Every path below /api/v1/, taken from the URL map so that a new one cannot be forgotten."""
    for found in (resolver or get_resolver()).url_patterns:
        where = prefix + str(found.pattern)
        if isinstance(found, URLResolver):
            yield from endpoints(found, where) if where.startswith("api/") else ()
        elif where.startswith("api/v1/"):
            yield where.replace("<uuid:pk>", "00000000-0000-4000-8000-000000000000"), found.callback.cls


def test_the_schema_is_whole(tmp_path):
    call_command("spectacular", "--validate", "--fail-on-warn", "--file", str(tmp_path / "schema.yml"))
    text = (tmp_path / "schema.yml").read_text()
    for path, _ in endpoints():
        assert path.replace("00000000-0000-4000-8000-000000000000", "{id}") in text.replace("{pk}", "{id}")


@pytest.mark.django_db
def test_the_schema_is_served_to_everybody():
    assert api().get("/api/schema/").status_code == 200


@pytest.mark.django_db
def test_every_endpoint_but_registering_and_logging_in_wants_a_login():
    seen = set()
    for path, view in endpoints():
        seen.add(path)
        for method in {"get", "post", "put", "patch", "delete"} & set(dir(view)):
            if path not in OPEN:
                problem(getattr(api(), method)(f"/{path}"), 401)
    assert len(seen) >= 13


@pytest.mark.django_db
@pytest.mark.parametrize("path", ["/api/", "/api/v1/", "/api/v1/nothing", "/api/v1/tickets/1", "/api/v2/tickets"])
def test_a_wrong_address_is_a_problem_document_too(path):
    problem(api(person("ada")).get(path), 404)
    problem(api().post(path), 404)


@pytest.mark.django_db
def test_a_wrong_token_is_refused():
    client = api()
    client.credentials(HTTP_AUTHORIZATION="Token nonsense")
    problem(client.get("/api/v1/tickets"), 401)
