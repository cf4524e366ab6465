"""What holds for every page of the admin."""

import re

import pytest
from django.contrib import admin
from django.contrib.admin.models import ADDITION, CHANGE, DELETION, LogEntry
from django.contrib.auth.models import Group, Permission
from django.urls import reverse
from rest_framework.authtoken.models import TokenProxy

from accounts.models import ApiKey, User, digest
from dmlsite.admin import Audited, ReadOnlyAdmin
from dmlsite.tests.people import admin_client, person
from dmlsite.tests.rows import PAID, SETTLED, everything
from observe.models import Origin
from providers.models import Measurement

pytestmark = pytest.mark.django_db
MODELS = sorted(admin.site._registry, key=lambda model: model._meta.label)
READ_ONLY = [model for model in MODELS if isinstance(admin.site._registry[model], ReadOnlyAdmin)]
NAMES = {model: model._meta.label for model in MODELS}


def url(model, what, *args, **query):
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_{what}", args=args, query=query)


def shown(answer) -> str:
    """The page without the labels of its tick boxes, which say str(row), and a transfer's knows no units."""
    return re.sub(r'aria-label="[^"]*"', "", answer.content.decode())


@pytest.fixture
def ticket():
    return everything()


@pytest.mark.parametrize("model", MODELS, ids=NAMES.get)
def test_every_list_and_every_row_loads_and_can_be_searched(ticket, model):
    client = admin_client()
    assert model.objects.exists(), "rows.everything() should make one"
    page = client.get(url(model, "changelist"))
    assert page.status_code == 200
    for row in model.objects.all():
        answer = client.get(url(model, "change", row.pk))
        assert answer.status_code == 200
        for text in (shown(page), shown(answer)):
            assert "130000" not in text and "1000000" not in text, "amounts are shown in units"
            assert "micro" not in text and "wei</" not in text
    if admin.site._registry[model].search_fields:
        assert 'id="searchbar" aria-label="Search"' in page.content.decode()
        for term in (ticket.pk, PAID, SETTLED, "provider@example.org", "gpu-farm"):
            assert client.get(url(model, "changelist", q=term)).status_code == 200


@pytest.mark.parametrize("model", READ_ONLY, ids=NAMES.get)
def test_nothing_can_be_added_changed_or_deleted(ticket, model):
    client, row = admin_client(), model.objects.first()
    before = list(model.objects.values())
    added = client.post(url(model, "add"), {}).status_code
    assert added == (200 if model is Measurement else 403)  # that list grows here, by a reason
    assert client.post(url(model, "change", row.pk), {"state": "final", "_save": "1"}).status_code == 403
    assert client.post(url(model, "delete", row.pk), {"post": "yes"}).status_code == 403
    client.post(url(model, "changelist"), {"action": "delete_selected", "_selected_action": row.pk, "post": "yes"})
    assert list(model.objects.values()) == before


def test_money_statuses_and_standing_are_read_only():
    names = {model._meta.label for model in MODELS} - {model._meta.label for model in READ_ONLY}
    assert names == {"accounts.User", "auth.Group"}


def test_the_tokens_of_others_are_nobodys_to_read():
    assert TokenProxy not in MODELS


@pytest.mark.parametrize("model", MODELS, ids=NAMES.get)
def test_who_is_no_admin_is_sent_to_the_login(client, ticket, model):
    for user in (None, person("outsider", is_customer=True, is_provider=True)):
        if user:
            client.force_login(user)
        answer = client.get(url(model, "change", model.objects.first().pk))
        assert answer.status_code == 302 and answer.url.startswith(reverse("admin:login"))


@pytest.mark.parametrize("model", READ_ONLY, ids=NAMES.get)
def test_an_admin_who_may_only_look_is_offered_no_action(ticket, model):
    client = admin_client(is_superuser=False)
    name = f"view_{model._meta.model_name}"
    allowed = Permission.objects.get(codename=name, content_type__app_label=model._meta.app_label)
    User.objects.get(is_staff=True).user_permissions.add(allowed)
    answer = client.get(url(model, "change", model.objects.first().pk))
    assert answer.status_code == 200
    assert answer.context["buttons"] == []
    for action in admin.site._registry[model].buttons:
        form = {"action": action, "_selected_action": model.objects.first().pk, "reason": "because"}
        before = list(model.objects.values())
        client.post(url(model, "changelist"), form)
        assert list(model.objects.values()) == before


def test_the_site_is_called_dml():
    assert "DML" in admin_client().get(reverse("admin:index")).content.decode()


# --- From where -------------------------------------------------------------------------------------------------------
def test_no_page_forgets_from_where_somebody_acted():
    assert [page for page in admin.site._registry.values() if not isinstance(page, Audited)] == []


def test_the_audit_log_tells_from_where_and_finds_it():
    client, here = admin_client(), {"REMOTE_ADDR": "2001:db8::7"}
    group = reverse("admin:auth_group_add")
    assert client.post(group, {"name": "auditors"}, **here).status_code == 302
    pk = Group.objects.get().pk
    assert client.post(reverse("admin:auth_group_delete", args=[pk]), {"post": "yes"}, **here).status_code == 302
    key = ApiKey.objects.get(digest=digest(ApiKey.issue(person("worker"))))
    client.post(reverse("admin:accounts_apikey_changelist"), {"action": "revoke", "_selected_action": key.pk}, **here)
    found = LogEntry.objects.order_by("action_flag").values_list("action_flag", "origin__address")
    assert list(found) == [(flag, "2001:db8::7") for flag in (ADDITION, CHANGE, DELETION)]
    log = reverse("admin:admin_logentry_changelist")
    assert client.get(log, {"q": "2001:db8::7"}).content.decode().count("2001:db8::7</td>") == 3
    assert "2001:db8::7</td>" not in client.get(log, {"q": "10.0.0.1"}).content.decode()


def test_an_act_over_a_socket_without_addresses_is_logged_all_the_same():
    client = admin_client()
    assert client.post(reverse("admin:auth_group_add"), {"name": "auditors"}, REMOTE_ADDR="").status_code == 302
    assert LogEntry.objects.get().change_message and not Origin.objects.exists()
    assert client.get(reverse("admin:admin_logentry_changelist")).status_code == 200
