"""Registering, logging in and out over the API, by those who may and those who may not."""

import pytest
from rest_framework.authtoken.models import Token

from accounts.models import User
from dmlsite.tests.people import PASSWORD, api, counted_afresh, person, problem  # noqa: F401

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("counted_afresh")]
ADA = {"email": "Ada@Example.org", "password": PASSWORD, "kind": "provider"}


def test_who_registers_can_log_in_and_out():
    answer = api().post("/api/v1/register", ADA)
    assert answer.status_code == 201
    assert answer.json() == {
        "email": "ada@example.org",
        "confirmed": None,
        "is_customer": False,
        "is_provider": True,
    }
    token = api().post("/api/v1/login", {"email": "ADA@example.org", "password": PASSWORD}).json()["token"]
    client = api()
    client.credentials(HTTP_AUTHORIZATION=f"Token {token}")
    assert client.get("/api/v1/tickets").status_code == 200
    assert client.post("/api/v1/logout").status_code == 204
    problem(client.get("/api/v1/tickets"), 401)


def test_logging_in_twice_gives_the_same_token_so_that_two_scripts_work_side_by_side():
    person("ada", PASSWORD)
    tokens = {api().post("/api/v1/login", ADA).json()["token"] for _ in range(2)}
    assert len(tokens) == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"email": "taken@example.org"}, "taken"),
        ({"email": "TAKEN@example.org"}, "taken"),
        ({"email": "no address"}, "not an e-mail"),
        ({"password": "12345"}, "too short"),
        ({"password": "password"}, "too common"),
    ],
)
def test_a_registration_that_cannot_be_is_422_and_says_why(change, said):
    person("taken")
    assert said in problem(api().post("/api/v1/register", ADA | change), 422)["detail"]
    assert User.objects.count() == 1


@pytest.mark.parametrize("missing", ["email", "password", "kind"])
def test_a_missing_field_is_named(missing):
    fields = {name: value for name, value in ADA.items() if name != missing}
    assert list(problem(api().post("/api/v1/register", fields), 422)["errors"]) == [missing]


def test_nobody_registers_as_an_admin():
    problem(api().post("/api/v1/register", ADA | {"kind": "staff"}), 422)
    api().post("/api/v1/register", ADA | {"is_staff": True, "is_superuser": True})
    found = User.objects.get()
    assert not found.is_staff and not found.is_superuser


@pytest.mark.parametrize("email", ["ada@example.org", "nobody@example.org"])
def test_a_wrong_password_and_an_unknown_address_are_told_the_same(email):
    person("ada", PASSWORD)
    answer = api().post("/api/v1/login", {"email": email, "password": "wrong"})
    assert problem(answer, 401)["detail"] == "This e-mail address and password do not match an account."
    assert answer["WWW-Authenticate"] == "Token"
    assert not Token.objects.exists()


def test_a_closed_account_opens_nothing():
    user = person("ada", PASSWORD)
    client = api(user)
    User.objects.update(is_active=False)
    problem(api().post("/api/v1/login", ADA), 401)
    problem(client.get("/api/v1/tickets"), 401)


def test_guessing_is_limited_per_person_however_the_address_is_written(settings):
    settings.LOGIN_RATE = "3/5m"
    person("ada", PASSWORD)
    for email in ("ada@example.org", "ADA@example.org", " ada@example.org"):
        problem(api().post("/api/v1/login", {"email": email, "password": "wrong"}), 401)
    problem(api().post("/api/v1/login", ADA), 429)
    person("bob", PASSWORD)
    assert api().post("/api/v1/login", ADA | {"email": "bob@example.org"}).status_code == 200


def test_a_stranger_cannot_log_out_and_hears_how_to_log_in():
    answer = api().post("/api/v1/logout")
    problem(answer, 401)
    assert answer["WWW-Authenticate"] == "Token"


def test_a_browser_session_needs_a_csrf_token():
    """403, not 401: the person is known, the request is not theirs."""
    from rest_framework.test import APIClient

    client = APIClient(enforce_csrf_checks=True)
    client.force_login(person("ada"))
    assert client.get("/api/v1/tickets").status_code == 200
    problem(client.post("/api/v1/provider", {"user_name": "ada"}), 403)
