"""Schemathesis: whatever fits the OpenAPI, and what does not, is sent to every operation of the API, to a real database and chain. No answer
is a 5xx, and each is as the schema says.

SCHEMA_EXAMPLES=300 makes more of it, SCHEMA_SEED=n the same again; the seed is printed.
"""

import os
import random
from typing import Any

import pytest
import schemathesis
from django.core.cache import cache
from django.core.wsgi import get_wsgi_application
from django.utils import timezone
from drf_spectacular.generators import SchemaGenerator
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from accounts.models import ApiKey
from dmlsite.tests.people import api
from dmlsite.tests.rows import everything
from providers.models import Attestation, Provider
from tickets.models import PartialUpload, Status, Ticket
from tickets.uploads import PART_TYPE

EXAMPLES = int(os.environ.get("SCHEMA_EXAMPLES", "20"))
SEED = int(os.environ.get("SCHEMA_SEED", random.randrange(2**32)))
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
SCHEMA = schemathesis.openapi.from_dict(SchemaGenerator().get_schema(request=None, public=True))
OPERATIONS = {each.ok().label: each.ok() for each in SCHEMA.get_all_operations()}


@schemathesis.serializer(PART_TYPE)
def as_bytes(context: Any, value: Any) -> bytes:
    """A part of a file."""
    return value if isinstance(value, bytes) else str(value).encode(errors="replace")


@pytest.fixture
def ticket(transactional_db, chain, settings, tmp_path, inline_jobs, monkeypatch) -> Ticket:
    settings.MEDIA_ROOT = tmp_path
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    monkeypatch.setattr("dmlsite.jobs._send", lambda *args: None)
    found = everything()
    PartialUpload.objects.create(ticket=found, name="a.csv", size=10)
    return found


def local(app: Any) -> Any:
    """As a server tells where a request comes from."""
    return lambda environ, start: app(environ | {"REMOTE_ADDR": "127.0.0.1"}, start)


def filled(case: Any, ticket: Ticket, real: bool) -> None:
    """A ticket that there is, in the place of one that there is not."""
    for name in case.path_parameters or {}:
        if real:
            case.path_parameters[name] = str(ticket.partial.pk if "/uploads/" in case.path else ticket.pk)
        if real and "/attestations/" in case.path:
            Attestation.objects.update(presented=None, asked=timezone.now())
            case.path_parameters[name] = str(Attestation.objects.values_list("pk", flat=True).first())


@pytest.mark.parametrize("label", OPERATIONS)
def test_no_input_breaks_it_and_each_answer_is_as_the_schema_says(ticket, label):
    print(f"SCHEMA_SEED={SEED}")
    app, operation = local(get_wsgi_application()), OPERATIONS[label]
    headers = {"Authorization": api(ticket.customer)._credentials["HTTP_AUTHORIZATION"], "Tus-Resumable": "1.0.0"}
    if "/attestations" in label:  # for workers
        headers["Authorization"] = f"Bearer {ApiKey.issue(Provider.objects.get().user)}"

    @seed(SEED)
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        phases=[Phase.explicit, Phase.generate],
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(
        case=operation.as_strategy(),
        real=st.booleans(),
        status=st.sampled_from([Status.QUOTED, Status.PAID, Status.SETTLED]),
    )
    def send(case: Any, real: bool, status: str) -> None:
        cache.clear()
        ApiKey.objects.filter(name__isnull=False, use="client").delete()
        Ticket.objects.filter(pk=ticket.pk).update(status=status)
        if not PartialUpload.objects.filter(ticket=ticket).exists():
            PartialUpload.objects.create(ticket=ticket, name="a.csv", size=10)
        filled(case, Ticket.objects.get(pk=ticket.pk), real)
        answer = case.call(app=app, headers=headers)
        case.validate_response(answer, checks=CHECKS)

    send()
