"""How much of a request is read, for whom: asked of the whole application."""

import json

import httpx
from asgiref.sync import async_to_sync
from django.conf import settings
from django.test import Client

from accounts import actions
from dmlsite.asgi import application
from dmlsite.bodies import FORM, limit
from dmlsite.tests.people import api, person
from tickets.uploads import MAX_PART

TICKET = "00000000-0000-4000-8000-000000000000"
UPLOADS = [f"/tickets/{TICKET}/upload/", f"/api/v1/tickets/{TICKET}/file", "/tickets/check/", "/api/v1/quotes"]


class Sender:
    """Sends a body piece by piece, and counts what was taken of it."""

    def __init__(self, size: int) -> None:
        self.left, self.sent = size, 0

    async def __aiter__(self):
        while self.left > 0:
            self.left, self.sent = self.left - 10**6, self.sent + 10**6
            yield bytes(10**6)


@async_to_sync
async def post(path: str, size: int, said: bool = False, **headers: str) -> tuple[int, int]:
    """The answer's status, and the bytes that were asked for before it came."""
    body = Sender(size)
    told = {"content-length": str(size)} if said else {}
    transport = httpx.ASGITransport(application)
    async with httpx.AsyncClient(transport=transport, base_url="http://testserver") as client:
        answer = await client.post(path, content=body, headers=headers | told)
    return answer.status_code, body.sent


def test_what_is_larger_than_a_form_is_not_read_to_its_end(transactional_db):
    for path in ("/", "/accounts/login/", "/nowhere", "/admin/login/", "/api/v1/login"):
        status, taken = post(path, 100 * 10**6)
        assert (status, taken <= FORM + 10**6) == (413, True), path
        assert post(path, 100 * 10**6, said=True) == (413, 0), path


def test_a_large_file_from_nobody_is_not_read_either(transactional_db):
    for path in UPLOADS:
        for headers in ({}, {"authorization": "Bearer dml_nonsense"}, {"cookie": "sessionid=abcdefabcdefabcdef"}):
            status, taken = post(path, 50 * 10**6, **headers)
            assert (status, taken <= FORM + 10**6) == (401, True), path


def test_one_from_somebody_we_know_is_up_to_what_is_taken_there(transactional_db, settings):
    settings.MAX_DATASET_BYTES = 10 * 10**6
    ada = person("ada")
    browser = Client()
    browser.force_login(ada)
    for headers in (
        {"authorization": api(ada)._credentials["HTTP_AUTHORIZATION"]},
        {"authorization": f"Bearer {actions.issue_key(ada, 'lab')}"},
        {"cookie": f"sessionid={browser.cookies['sessionid'].value}"},
    ):
        assert post(f"/tickets/{TICKET}/upload/", 12 * 10**6, said=True, **headers) == (413, 0)
        status, taken = post(f"/api/v1/tickets/{TICKET}/file", 10 * 10**6, said=True, **headers)
        assert taken == 10 * 10**6 and status in (403, 404, 415), "read, and then none of their business"


def test_small_requests_pass(transactional_db):
    @async_to_sync
    async def login() -> int:
        transport = httpx.ASGITransport(application)
        async with httpx.AsyncClient(transport=transport, base_url="http://testserver") as client:
            form = json.dumps({"email": "a@b.c", "password": "x"})
            return (
                await client.post("/api/v1/login", content=form, headers={"content-type": "application/json"})
            ).status_code

    assert login() == 401


def test_each_address_that_takes_files_says_how_much():
    assert limit(f"/tickets/uploads/{TICKET}/") > MAX_PART
    assert limit(f"/api/v1/uploads/{TICKET}") > MAX_PART
    assert limit(f"/tickets/{TICKET}/upload/") > settings.MAX_DATASET_BYTES
    assert limit(f"/api/v1/tickets/{TICKET}/file") > settings.MAX_DATASET_BYTES
    for path in ("/tickets/check/", "/api/v1/check"):
        assert limit(path) > settings.MAX_CHECK_BYTES
    for path in ("/tickets/order/", "/tickets/model/", "/api/v1/quotes"):
        assert limit(path) > 400 * 10**6
    assert limit("/tickets/") == FORM
