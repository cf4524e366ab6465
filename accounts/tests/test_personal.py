"""What is known about a person is given to them, and erased when they go."""

import json
from datetime import timedelta

import pytest
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.auth import authenticate
from django.contrib.contenttypes.models import ContentType
from django.core import mail as post
from django.core.files.base import ContentFile
from django.urls import reverse
from django.utils import timezone
from rest_framework.authtoken.models import Token

from accounts import personal
from accounts.models import ApiKey, User, Wallet
from dmlsite.errors import Conflict, Invalid
from dmlsite.testing import files_kept
from dmlsite.tests.people import PASSWORD, counted_afresh, person  # noqa: F401
from dmlsite.tests.rows import everything
from ledger.models import Alarm, ChainEvent, Sighting, Transfer
from providers import actions as providers
from providers.models import Accusation, Provider, Standing, StandingEvent
from tickets.actions import payment_seen, store_artifact
from tickets.models import Artifact, Dataset, Leftover, Mail, Status, Ticket, TicketEvent
from tickets.tasks import send_mail, sweep
from training.models import Run
from training.tasks import settled

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
    payout(ticket, followed=timezone.now())
    return ticket


def payout(ticket, **fields):
    place = {"chain_id": 1, "block": 9, "block_hash": "0x9", "log_index": 0, "tx": "0x9", "args": {}}
    return ChainEvent.objects.create(name="Settled", case=ticket.pk, **place, **fields)


def traces(ticket):
    """Where a file's name, its content and the customer's address have come to stand."""
    address, said = ticket.customer.email, "preparing: could not convert 'Ada Lovelace'"
    events = [("moved", "uploaded", "cells.csv, 10 bytes"), ("error", "", said)]
    refusals = [f"The file cannot be trained on: {said}", f"Something went wrong on our side: {said}"]
    for kind, new, text in [*events, *(("moved", "refunded", text) for text in refusals)]:
        TicketEvent.objects.create(ticket=ticket, kind=kind, new=new, text=text)
    Ticket.objects.update(outcome=refusals[0])
    Mail.objects.create(ticket=ticket, kind="paid", to=address, sent=timezone.now(), error=f"no {address}")
    for kind, text in (("ticket failed", said), ("mail failed", f"no {address}")):
        seen = Alarm.objects.create(kind=kind, case=ticket.pk, text=text)
        logged(seen)
    logged(ticket.customer)
    Run.objects.update(classes=["Lovelace"], facts={"holdout_samples": 10, "features": ["cells"], "example": [1.5]})


def logged(row):
    admin = User.objects.filter(is_staff=True).first() or person("admin", is_staff=True)
    about = {"content_type": ContentType.objects.get_for_model(row), "object_id": row.pk, "object_repr": str(row)}
    LogEntry.objects.create(user=admin, action_flag=CHANGE, **about)


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


def test_a_closed_account_leaves_nothing_of_the_person_and_all_of_the_money(client, ticket, inline_jobs):
    user = ticket.customer
    traces(ticket)
    Token.objects.create(user=user)
    Wallet.objects.create(user=user, address="0x" + "34" * 20)
    money = list(Transfer.objects.values())
    assert files_kept()
    client.force_login(user)
    assert client.post(reverse("accounts:close"), {"password": PASSWORD}).url == reverse("home")

    assert not files_kept()
    assert authenticate(username="customer@example.org", password=PASSWORD) is None
    assert client.get(reverse("accounts:account")).status_code == 302
    assert not Token.objects.exists() and not Wallet.objects.exists()
    left = json.dumps(
        [list(model.objects.values()) for model in (User, Ticket, TicketEvent, Dataset, Mail, Run, Alarm, LogEntry)],
        default=str,
    )
    assert "customer@" not in left and "cells" not in left and "Lovelace" not in left
    assert not Mail.objects.filter(sent=None).exists()
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


def test_not_before_the_payout_is_final(ticket):
    """What follows it makes a model card, and a mail."""
    ChainEvent.objects.filter(name="Settled").delete()
    with pytest.raises(Conflict, match="payment of the providers is not final"):
        personal.close(ticket.customer, PASSWORD)
    payout(ticket, followed=None)
    with pytest.raises(Conflict, match="payment of the providers is not final"):
        personal.close(ticket.customer, PASSWORD)
    ChainEvent.objects.update(followed=timezone.now())
    personal.close(ticket.customer, PASSWORD)


def test_nothing_is_made_and_mailed_for_a_closed_account(ticket, inline_jobs):
    event = ChainEvent.objects.get(name="Settled")
    ChainEvent.objects.update(followed=None)
    User.objects.filter(pk=ticket.customer_id).update(is_active=False)
    settled.fn(event.pk)
    event.refresh_from_db()
    assert event.followed and not ticket.artifacts.filter(name="model-card.md").exists()
    assert Mail.objects.count() == 1 and post.outbox == []


def test_a_payment_that_comes_after_the_account_was_closed_is_not_mailed_and_goes_back(ticket, chain, inline_jobs):
    Ticket.objects.update(status=Status.QUOTED)
    personal.close(ticket.customer, PASSWORD)
    ticket.refresh_from_db()
    payment_seen(ticket)
    assert ticket.status == Status.PAID
    Ticket.objects.update(upload_by=timezone.now())
    sweep.fn()
    assert Ticket.objects.get().status == Status.REFUNDED
    assert post.outbox == [] and not Mail.objects.filter(sent=None).exists()


def test_a_mail_that_was_queued_as_the_account_closed_is_not_sent(ticket, inline_jobs):
    User.objects.filter(pk=ticket.customer_id).update(is_active=False)
    send_mail.fn(Mail.objects.get().pk)
    assert post.outbox == [] and not Mail.objects.exists()


def test_what_a_job_makes_as_the_account_closes_is_not_kept(ticket, inline_jobs):
    personal.close(ticket.customer, PASSWORD)
    with pytest.raises(Conflict, match="closed"):
        store_artifact(ticket, "model.keras", ContentFile(b"model"))
    assert not files_kept() and not Artifact.objects.exists()


@pytest.mark.embedded
def test_a_storage_that_does_not_delete_is_asked_again(client, ticket, tmp_path, inline_jobs):
    name = Dataset.objects.get().file.name
    (tmp_path / name).unlink()
    (tmp_path / name / "in the way").mkdir(parents=True)  # which no storage can delete
    client.force_login(ticket.customer)
    assert client.post(reverse("accounts:close"), {"password": PASSWORD}).status_code == 302
    assert Leftover.objects.get(name=name).error
    assert not files_kept(), "all others are gone"


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
