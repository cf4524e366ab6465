"""Whether an e-mail address is its owner's."""

import re

import pytest
from django.core import mail
from django.urls import reverse

from accounts import actions, confirmation, tasks
from accounts.models import User
from dmlsite.tests.people import PASSWORD, counted_afresh  # noqa: F401

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("inline_jobs", "counted_afresh")]


@pytest.fixture
def ada():
    return actions.register("ada@example.org", PASSWORD, "customer")


def link(message) -> str:
    return re.search(r"http://\S+?(/\S+)", message.body)[1]


def test_who_registers_gets_a_link_and_the_button_behind_it_confirms(client, ada):
    [message] = mail.outbox
    assert message.to == ["ada@example.org"] and link(message) in message.alternatives[0][0]
    page = client.get(link(message))
    assert "ada@example.org" in page.content.decode()
    ada.refresh_from_db()
    assert ada.confirmed is None, "programs that look into mails follow links"
    for _ in range(2):
        assert client.post(link(message)).url == reverse("accounts:login")
    ada.refresh_from_db()
    assert ada.confirmed


def test_the_account_page_sends_another_link_until_it_was_used(client, ada):
    client.force_login(ada)
    assert "not confirmed yet" in client.get(reverse("accounts:account")).content.decode()
    client.post(reverse("accounts:ask_confirmation"))
    assert len(mail.outbox) == 2
    assert client.post(link(mail.outbox[1])).url == reverse("accounts:account")
    assert "not confirmed yet" not in client.get(reverse("accounts:account")).content.decode()
    client.post(reverse("accounts:ask_confirmation"))
    tasks.ask_confirmation.fn(ada.pk)
    assert len(mail.outbox) == 2


def test_a_damaged_an_old_and_another_addresss_link_say_so(client, ada, monkeypatch):
    good = link(mail.outbox[0])
    User.objects.update(email="eve@example.org")
    assert "no account any more" in client.post(good).content.decode()
    assert "damaged or too old" in client.get(good[:-3] + "x/").content.decode()
    monkeypatch.setattr(confirmation, "SECONDS", -1)
    answer = client.get(good)
    assert answer.status_code == 422 and "damaged or too old" in answer.content.decode()
    assert not User.objects.exclude(confirmed=None).exists()


def test_who_chose_a_new_password_by_mail_has_confirmed(client, ada):
    mail.outbox.clear()
    client.post(reverse("accounts:reset"), {"email": ada.email})
    form = client.get(link(mail.outbox[0]), follow=True)
    client.post(form.request["PATH_INFO"], {"new_password1": "another-7-good", "new_password2": "another-7-good"})
    ada.refresh_from_db()
    assert ada.confirmed
