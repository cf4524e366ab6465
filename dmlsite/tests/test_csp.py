"""Every answer carries the policy, and no page holds what the policy forbids."""

import re

import pytest
from django.contrib import admin
from django.test import Client
from django.urls import reverse

from dmlsite.csp import POLICY
from dmlsite.tests.people import admin_client
from dmlsite.tests.rows import everything

pytestmark = pytest.mark.django_db
INLINE = re.compile(r"<style|<[^>]+\s(?:style|on[a-z]+)=|<script(?![^>]*\ssrc=)[^>]*>\s*[^\s<]|=.javascript:", re.I)
"""A style, a handler, or a script with something in it; data (`type="application/json"`) is taken out before."""
DATA = re.compile(r'<script[^>]*type="application/json"[^>]*>.*?</script>', re.S)


def inline(answer) -> list[str]:
    return INLINE.findall(DATA.sub("", answer.content.decode()))


def asked(path: str) -> str:
    return Client(raise_request_exception=False).get(path).headers.get("Content-Security-Policy", "")


def broken(request):
    raise RuntimeError("on purpose")


@pytest.mark.parametrize(
    "path",
    ["/", "/accounts/login/", "/nowhere/", "/admin/", "/admin/login/", "/api/v1/nothing", "/static/css/site.css"],
)
def test_every_answer_has_the_policy(path):
    assert asked(path) == POLICY
    assert "frame-ancestors 'none'" in POLICY and "unsafe" not in POLICY


def test_a_page_that_breaks_has_it_too(monkeypatch):
    monkeypatch.setattr("dmlsite.views.money.price", broken)
    assert Client(raise_request_exception=False).get("/").status_code == 500
    assert asked("/") == POLICY


def test_no_page_of_the_admin_has_anything_inline():
    everything()
    client = admin_client()
    pages = ["/admin/", "/admin/training/assignment/standing/"]
    for model in admin.site._registry:
        name = f"admin:{model._meta.app_label}_{model._meta.model_name}"
        pages += [reverse(f"{name}_changelist"), reverse(f"{name}_change", args=[model.objects.first().pk])]
    pages.append(reverse("admin:accounts_user_add"))
    for page in pages:
        answer = client.get(page)
        assert answer.status_code == 200, page
        assert inline(answer) == [], page


def test_nor_has_a_page_of_the_site():
    ticket = everything()
    client = Client()
    client.force_login(ticket.customer)
    for page in (
        "/",
        "/tickets/",
        "/tickets/order/",
        f"/tickets/{ticket.pk}/",
        "/accounts/",
        "/provider/",
        "/nowhere/",
    ):
        assert inline(client.get(page)) == [], page
    assert inline(Client().get("/accounts/login/")) == []
