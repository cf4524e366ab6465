"""Registration, login, logout, password reset, and the account page, as a browser sees them."""

import re

import pytest
from django.core import mail
from django.core.cache import cache
from django.urls import reverse
from rest_framework.authtoken.models import Token

from accounts import actions
from accounts.models import User
from dmlsite.errors import Invalid

pytestmark = pytest.mark.django_db
PASSWORD = "battery-staple-9"
REGISTER = {"kind": "customer", "email": "Ada@Example.org", "password": PASSWORD, "confirm": PASSWORD}


@pytest.fixture(autouse=True)
def no_counts():
    cache.clear()


@pytest.fixture
def ada():
    return actions.register("ada@example.org", PASSWORD, "customer")


@pytest.mark.parametrize(("kind", "page"), [("customer", "tickets:list"), ("provider", "providers:home")])
def test_who_registers_is_logged_in_and_lands_on_the_page_of_their_type(client, kind, page):
    answer = client.post(reverse("accounts:register"), REGISTER | {"kind": kind})
    assert answer.status_code == 302
    assert answer.url == reverse(page)
    user = User.objects.get(email="ada@example.org")
    assert client.session["_auth_user_id"] == str(user.pk)
    assert (user.is_customer, user.is_provider) == (kind == "customer", kind == "provider")
    assert user.password.startswith("argon2")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"email": "ADA@example.org"}, "This e-mail address is taken."),
        ({"email": "nobody"}, "Enter a valid email address."),
        ({"email": ""}, "This field is required."),
        ({"confirm": "something else"}, "The two passwords differ."),
        ({"password": "short", "confirm": "short"}, "This password is too short."),
        ({"password": "password1", "confirm": "password1"}, "This password is too common."),
        ({"kind": "admin"}, "is not one of the available choices."),
    ],
)
def test_bad_registrations_are_refused_with_the_reason(client, ada, change, message):
    answer = client.post(reverse("accounts:register"), REGISTER | {"email": "new@example.org"} | change)
    assert answer.status_code == 422
    assert message in answer.content.decode()
    assert User.objects.count() == 1


def test_the_verb_refuses_what_the_page_refuses(ada):
    for email, password, kind in [
        ("ada@example.org", PASSWORD, "customer"),
        ("b@example.org", "short", "customer"),
        ("b@example.org", PASSWORD, "staff"),
    ]:
        with pytest.raises(Invalid):
            actions.register(email, password, kind)


def test_login_ignores_the_case_of_the_address_and_goes_where_one_was_going(client, ada):
    order = reverse("tickets:order")
    assert client.get(order).url == f"{reverse('accounts:login')}?next={order}"
    answer = client.post(
        reverse("accounts:login"), {"username": "ADA@example.org", "password": PASSWORD, "next": order}
    )
    assert answer.url == order


def test_a_wrong_password_is_refused_and_does_not_say_which_part_was_wrong(client, ada):
    texts = []
    for email in ("ada@example.org", "nobody@example.org"):
        answer = client.post(reverse("accounts:login"), {"username": email, "password": "wrong-password"})
        assert answer.status_code == 422
        texts.append(re.findall(r'class="error" role="alert">([^<]*)', answer.content.decode()))
    assert texts[0] == texts[1] == ["This e-mail address and password do not match an account."]


@pytest.mark.parametrize(
    ("page", "fields"), [("login", {"username": "ada@example.org"}), ("reset", {"email": "a@b.org"})]
)
def test_too_many_attempts_are_stopped_with_a_friendly_page(client, ada, settings, page, fields):
    settings.LOGIN_RATE = "3/5m"
    fields |= {"password": "wrong"}
    codes = [client.post(reverse(f"accounts:{page}"), fields).status_code for _ in range(4)]
    assert codes[-1] == 429
    assert 429 not in codes[:3]
    assert "Please try again in" in client.post(reverse(f"accounts:{page}"), fields).content.decode()


def test_an_address_is_protected_from_many_computers_too(client, ada, settings):
    settings.LOGIN_RATE = "3/5m"
    fields = {"username": "ada@example.org", "password": "wrong"}
    codes = [client.post(reverse("accounts:login"), fields, REMOTE_ADDR=f"10.0.0.{n}").status_code for n in range(4)]
    assert codes == [422, 422, 422, 429]


def test_logout_is_a_post(client, ada):
    client.force_login(ada)
    assert client.get(reverse("accounts:logout")).status_code == 405
    assert client.post(reverse("accounts:logout")).status_code == 302
    assert "_auth_user_id" not in client.session


@pytest.mark.django_db(transaction=True)
def test_a_password_is_reset_by_mail_once(client, ada, inline_jobs):
    Token.objects.create(user=ada)
    client.post(reverse("accounts:reset"), {"email": "ada@example.org"})
    [sent] = mail.outbox
    link = re.search(r"http://localhost:8000(\S+)", sent.body)[1]
    form = client.get(link, follow=True)
    new = "another-good-one-7"
    done = client.post(form.request["PATH_INFO"], {"new_password1": new, "new_password2": new})
    assert done.url == reverse("accounts:reset_complete")
    assert client.login(username="ada@example.org", password=new)
    assert "used already" in client.get(link, follow=True).content.decode()
    assert not Token.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_a_reset_tells_nobody_who_has_an_account(client, ada, inline_jobs):
    answers = [
        client.post(reverse("accounts:reset"), {"email": email}) for email in ("ada@example.org", "x@example.org")
    ]
    assert [answer.url for answer in answers] == [reverse("accounts:reset_sent")] * 2
    assert len(mail.outbox) == 1
    assert inline_jobs == ["accounts.tasks.mail_reset"] * 2, "nor does the time that it takes: a job finds out"


def test_the_account_page_offers_the_other_role(client, ada):
    assert client.get(reverse("accounts:account")).status_code == 302
    client.force_login(ada)
    page = client.get(reverse("accounts:account")).content.decode()
    assert "ada@example.org" in page
    assert "Become a provider too" in page


def test_a_password_is_changed_and_the_session_goes_on(client, ada):
    client.force_login(ada)
    Token.objects.create(user=ada)
    new = "another-good-one-7"
    fields = {"old_password": PASSWORD, "new_password1": new, "new_password2": new}
    assert client.post(reverse("accounts:password"), fields).url == reverse("accounts:account")
    assert client.get(reverse("accounts:account")).status_code == 200
    assert not Token.objects.exists()


def test_a_fragment_after_the_session_ended_sends_the_whole_page_to_the_login(client):
    headers = {"HX-Request": "true", "HX-Current-URL": "http://testserver/provider/"}
    answer = client.get(reverse("accounts:login"), headers=headers)
    assert answer.headers["HX-Redirect"] == f"{reverse('accounts:login')}?next=%2Fprovider%2F"


def test_no_page_has_inline_scripts_or_handlers(client, ada):
    pages = [reverse(name) for name in ("home", "accounts:login", "accounts:register", "accounts:reset")]
    logged_in = [reverse(name) for name in ("tickets:list", "tickets:order", "accounts:account", "dev:mail")]
    texts = [client.get(page).content.decode() for page in pages]
    client.force_login(ada)
    texts += [client.get(page).content.decode() for page in logged_in]
    for text in texts:
        assert not re.search(r"<script(?![^>]*\bsrc=)|\son\w+=|\sstyle=|javascript:", text)


def test_unknown_pages_and_the_home_page_answer(client):
    assert client.get("/nowhere/").status_code == 404
    home = client.get("/")
    assert home.status_code == 200
    assert "1 DML for 10 MB" in home.content.decode()
