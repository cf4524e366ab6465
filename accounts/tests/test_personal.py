"""What is known about a person is given to them, and erased when they go."""

import json
from datetime import timedelta

import pytest
from django.contrib.auth import authenticate
from django.core.files.base import ContentFile
from django.urls import reverse
from django.utils import timezone
from rest_framework.authtoken.models import Token

from accounts import personal
from accounts.models import ApiKey, User, Wallet
from dmlsite.errors import Conflict, Invalid
from dmlsite.tests.people import PASSWORD, counted_afresh, person  # noqa: F401
from dmlsite.tests.rows import everything
from ledger.models import Sighting, Transfer
from providers import actions as providers
from providers.models import Accusation, Provider, Standing, StandingEvent
from tickets.models import Artifact, Dataset, Mail, Status, Ticket, TicketEvent

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("counted_afresh")]


@pytest.fixture
def ticket(settings, tmp_path):
    settings.MEDIA_ROOT = tmp_path
    ticket = everything()
    ticket.customer.set_password(PASSWORD)
    ticket.customer.save()
    for row in (Dataset.objects.get(), Artifact.objects.get()):
        row.file.save("x", ContentFile(b"mine"))
    TicketEvent.objects.create(
        ticket=ticket, kind="mailed", text=f"to {ticket.customer.email}", actor=ticket.customer.email
    )
    return ticket


def test_the_export_has_all_of_it(client, ticket):
    Wallet.objects.create(user=ticket.customer, address="0x" + "34" * 20)
    client.force_login(ticket.customer)
    answer = client.get(reverse("accounts:export"))
    assert 'filename="dml-my-data.json"' in answer["Content-Disposition"]
    found = json.loads(answer.content)
    assert found["account"]["email"] == "customer@example.org"
    assert found["account"]["wallets"][0]["address"] == "0x" + "34" * 20
    [mine] = found["tickets"]
    assert mine["price"] == 130_000 and mine["files"][0]["name"] == "cells.csv" and mine["mails"]
    assert found["providers"] is None

    client.force_login(User.objects.get(email="provider@example.org"))
    found = json.loads(client.get(reverse("accounts:export")).content)
    assert found["providers"]["user_name"] == "gpu-farm" and found["providers"]["cases"]
    assert found["training"][0]["correct"] == 190
    assert found["tickets"] == []


def test_the_export_names_nobody_else(client, ticket):
    for actor in ("root@example.org", "platform"):
        TicketEvent.objects.create(ticket=ticket, kind="moved", text="", actor=actor)
    StandingEvent.objects.update(actor="root@example.org")
    Accusation.objects.update(evidence={"decided_by": "root@example.org"})
    client.force_login(ticket.customer)
    found = client.get(reverse("accounts:export")).content.decode()
    assert "root@" not in found
    actors = [event["actor"] for event in json.loads(found)["tickets"][0]["events"]]
    assert actors[-3:] == ["you", "an admin", "platform"]
    client.force_login(User.objects.get(email="provider@example.org"))
    assert "root@" not in client.get(reverse("accounts:export")).content.decode()


def test_a_closed_account_leaves_nothing_of_the_person_and_all_of_the_money(client, ticket, tmp_path):
    user = ticket.customer
    Token.objects.create(user=user)
    Wallet.objects.create(user=user, address="0x" + "34" * 20)
    money = list(Transfer.objects.values())
    assert [path for path in tmp_path.rglob("*") if path.is_file()]
    client.force_login(user)
    assert client.post(reverse("accounts:close"), {"password": PASSWORD}).url == reverse("home")

    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    assert authenticate(username="customer@example.org", password=PASSWORD) is None
    assert client.get(reverse("accounts:account")).status_code == 302
    assert not Token.objects.exists() and not Wallet.objects.exists()
    left = json.dumps(
        [list(model.objects.values()) for model in (User, Ticket, TicketEvent, Dataset, Mail)], default=str
    )
    assert "customer@" not in left and "cells" not in left
    assert list(Transfer.objects.values()) == money
    assert Ticket.objects.get().price == 130_000
    assert User.objects.create_user("customer@example.org", PASSWORD), "the address is free again"


def test_a_wrong_password_closes_nothing(client, ticket):
    client.force_login(ticket.customer)
    answer = client.post(reverse("accounts:close"), {"password": "wrong"})
    assert answer.status_code == 422 and "not your password" in answer.content.decode()
    with pytest.raises(Invalid):
        personal.close(ticket.customer, "wrong")
    assert User.objects.filter(email="customer@example.org", is_active=True).exists()


@pytest.mark.parametrize("status", [Status.PAID, Status.UPLOADED, Status.TRAINING])
def test_not_while_a_ticket_is_under_way(client, ticket, status):
    Ticket.objects.update(status=status)
    client.force_login(ticket.customer)
    page = client.get(reverse("accounts:close")).content.decode()
    assert "not finished yet" in page and "erase my data</button>" not in page
    assert client.post(reverse("accounts:close"), {"password": PASSWORD}).status_code == 409
    assert Dataset.objects.get().name == "cells.csv"


@pytest.mark.parametrize("standing", [Standing.ACTIVE, Standing.EXITING, Standing.ACCUSED])
def test_not_while_a_deposit_is_locked(ticket, standing):
    provider = Provider.objects.get()
    Provider.objects.update(standing=standing)
    provider.user.set_password(PASSWORD)
    provider.user.save()
    with pytest.raises(Conflict, match="deposit"):
        personal.close(provider.user, PASSWORD)


@pytest.fixture
def asking(chain):
    """A provider who had the deposit's transaction prepared, and for whom no deposit came."""
    provider = Provider.objects.create(user=person("asking", PASSWORD), user_name="asking")
    providers.deposit_call(provider, "0x" + "56" * 20)
    return provider


def an_hour_ago():
    Provider.objects.update(deposit_asked=timezone.now() - timedelta(minutes=61))


@pytest.mark.parametrize("standing", [Standing.PENDING, Standing.LEFT])
def test_not_while_a_deposit_may_be_on_its_way(asking, standing):
    Provider.objects.update(standing=standing)
    with pytest.raises(Conflict, match="on its way"):
        personal.close(asking.user, PASSWORD)


def test_who_declined_to_pay_the_deposit_closes_the_account_an_hour_later(asking):
    an_hour_ago()
    personal.close(asking.user, PASSWORD)
    asking.refresh_from_db()
    asking.user.refresh_from_db()
    assert not asking.user.is_active and not asking.deposit_from, "one that comes after all raises an alarm"


def test_not_while_the_deposit_is_seen_and_not_final(asking):
    an_hour_ago()
    Sighting.objects.create(name="Registered", case=asking.pk, tx="0x1", block=1, block_hash="0x2")
    with pytest.raises(Conflict, match="on its way"):
        personal.close(asking.user, PASSWORD)


def test_a_banned_wallet_stays_banned(ticket):
    provider = Provider.objects.get()
    Provider.objects.update(standing=Standing.BANNED)
    provider.user.set_password(PASSWORD)
    provider.user.save()
    personal.close(provider.user, PASSWORD)
    left = Provider.objects.get()
    assert (left.wallet, left.standing) == (provider.wallet, Standing.BANNED)
    assert left.user_name.startswith("gone-") and not ApiKey.objects.exists()


def test_an_admin_does_not_close_their_own():
    admin = person("admin", PASSWORD, is_staff=True)
    with pytest.raises(Conflict, match="another admin"):
        personal.close(admin, PASSWORD)
