"""Keys of programs: made and revoked on the account page, and what they open."""

import pytest
from django.core.cache import cache
from django.urls import reverse
from rest_framework.test import APIClient

from accounts import actions
from accounts.models import ApiKey
from dmlsite.tests.people import PASSWORD, api, person, problem

pytestmark = pytest.mark.django_db
CREATE = "/accounts/keys/"


@pytest.fixture(autouse=True)
def no_counts():
    cache.clear()


@pytest.fixture
def ada():
    return person("ada", PASSWORD, is_customer=True)


@pytest.fixture
def owner(client, ada):
    client.force_login(ada)
    return client


def holder(key: str) -> APIClient:
    """A program that shows this key."""
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {key}")
    return client


def test_a_key_is_shown_once_and_kept_as_a_hash(owner, ada):
    answer = owner.post(CREATE, {"name": "lab"})
    page = answer.content.decode()
    key = page.split('<pre id="key">')[1].split("<")[0]
    assert "no-store" in answer.headers["Cache-Control"]
    row = ApiKey.objects.get()
    assert (row.user, row.name, row.use) == (ada, "lab", "client")
    assert key not in str(list(ApiKey.objects.values()))
    again = owner.get("/accounts/").content.decode()
    assert "lab" in again and key not in again
    assert holder(key).get("/api/v1/tickets").json() == []


def test_a_key_opens_the_api_until_its_owner_revokes_it(owner, ada):
    key = actions.issue_key(ada, "lab")
    other = actions.issue_key(ada, "home")
    page = owner.post(reverse("accounts:key_revoke", args=[ApiKey.objects.get(name="lab").pk]), follow=True)
    assert "no longer works" in page.content.decode()
    assert "revoked" in problem(holder(key).get("/api/v1/tickets"), 401)["detail"]
    assert holder(other).get("/api/v1/tickets").status_code == 200


def test_nobody_revokes_somebody_elses_key_or_a_workers(owner, ada):
    theirs, worker = actions.issue_key(person("eve"), "hers"), ApiKey.issue(ada)
    for row in ApiKey.objects.all():
        assert owner.post(reverse("accounts:key_revoke", args=[row.pk])).status_code == 404
    assert ApiKey.valid(theirs, "client").exists() and ApiKey.valid(worker).exists()


def test_a_workers_key_does_not_open_the_api_nor_the_other_way_round(ada):
    assert not ApiKey.valid(actions.issue_key(ada, "lab")).exists()
    problem(holder(ApiKey.issue(ada)).get("/api/v1/tickets"), 401)


@pytest.mark.parametrize("key", ["", "dml_nonsense", "x y"])
def test_a_wrong_key_is_refused(key):
    problem(holder(key).get("/api/v1/tickets"), 401)


def test_a_key_of_a_closed_account_opens_nothing(ada):
    key = actions.issue_key(ada, "lab")
    type(ada).objects.update(is_active=False)
    problem(holder(key).get("/api/v1/tickets"), 401)


def test_a_new_password_revokes_the_keys_of_programs_and_not_the_workers(owner, ada):
    key, worker = actions.issue_key(ada, "lab"), ApiKey.issue(ada)
    fields = {"old_password": PASSWORD, "new_password1": "battery-staple-9", "new_password2": "battery-staple-9"}
    assert owner.post(reverse("accounts:password"), fields).status_code == 302
    problem(holder(key).get("/api/v1/tickets"), 401)
    assert ApiKey.valid(worker).exists()


def test_a_program_that_is_logged_in_makes_a_key_but_a_key_makes_no_other(ada):
    answer = api(ada).post("/api/v1/keys", {"name": "shell"})
    assert (answer.status_code, answer.headers["Cache-Control"]) == (201, "no-store")
    key = answer.json()["key"]
    assert holder(key).get("/api/v1/tickets").status_code == 200
    problem(holder(key).post("/api/v1/keys", {"name": "another"}), 403)
    assert ApiKey.objects.count() == 1


def test_nobody_without_a_login_makes_a_key(client):
    assert client.post(CREATE, {"name": "lab"}).status_code == 302
    problem(api().post("/api/v1/keys"), 401)
    assert not ApiKey.objects.exists()


def test_a_key_without_a_good_name_is_not_made(owner):
    assert owner.post(CREATE, {"name": "x" * 61}).status_code == 422
    assert not ApiKey.objects.exists()


def test_a_key_that_only_reads_changes_nothing(owner, ada):
    page = owner.post(CREATE, {"name": "look", "scope": "read"}).content.decode()
    key = page.split('<pre id="key">')[1].split("<")[0]
    assert holder(key).get("/api/v1/tickets").status_code == 200
    assert "only reads" in problem(holder(key).post("/api/v1/quotes", {}), 403)["detail"]
    problem(holder(key).post("/api/v1/provider", {"user_name": "ada"}), 403)
    made = api(ada).post("/api/v1/keys", {"scope": "read"}).json()["key"]
    problem(holder(made).post("/api/v1/check", {}), 403)
    assert "errors" in problem(api(ada).post("/api/v1/keys", {"scope": "all"}), 422)


def test_a_key_tells_when_it_was_last_used(owner, ada):
    key = actions.issue_key(ada, "lab")
    assert "never" in owner.get("/accounts/").content.decode()
    holder(key).get("/api/v1/tickets")
    used = ApiKey.objects.get().last_used
    assert used and f"{used:%H:%M}" in owner.get("/accounts/").content.decode()
    holder(key).get("/api/v1/tickets")
    assert ApiKey.objects.get().last_used == used, "once a minute is enough"


def test_one_person_has_so_many_keys_at_once(owner, ada, monkeypatch):
    monkeypatch.setattr(actions, "KEYS", 2)
    actions.issue_key(ada, "one"), actions.issue_key(ada, "two")
    problem(api(ada).post("/api/v1/keys"), 409)
    assert owner.post(CREATE, {"name": "three"}).status_code == 409
    owner.post(reverse("accounts:key_revoke", args=[ApiKey.objects.get(name="one").pk]))
    assert api(ada).post("/api/v1/keys").status_code == 201
