"""The mails about a ticket: which there are, once each, as text and as HTML with the same words."""

from datetime import timedelta
from html.parser import HTMLParser
from smtplib import SMTPDataError, SMTPRecipientsRefused

import pytest
from django.core import mail as post
from django.core.files.base import ContentFile
from django.urls import reverse
from django.utils import timezone

from dmlsite.demo import LAST_MAILS
from dmlsite.tests.people import person
from ledger.models import Alarm, ChainEvent
from tickets import actions, mail, tasks
from tickets.models import Mail, Status, Ticket

pytestmark = pytest.mark.django_db
PAYER = "0x" + "a" * 40
OVER = ("done", "refunded", "mishandled", "failed")


@pytest.fixture(autouse=True)
def no_messages(monkeypatch, settings, tmp_path):
    """Each mail is sent by hand."""
    monkeypatch.setattr("dmlsite.jobs._send", lambda *args: None)
    settings.MEDIA_ROOT, settings.SITE_URL = tmp_path, "https://dml.example"


@pytest.fixture
def ticket():
    soon = timezone.now() + timedelta(days=1)
    fields = {"file_name": "cells <b>&.csv", "file_size": 10, "price": 130_000, "payer": PAYER, "signature": b""}
    fields |= {"outcome": "5 < 6, see https://elsewhere.example/x", "accuracy": 0.97, "upload_by": soon}
    return Ticket.objects.create(
        customer=person("customer", confirmed=timezone.now()), pay_by=soon, settle_by=soon, **fields
    )


class Page(HTMLParser):
    """The words of a page's body, where its links go, and what tags it has."""

    def __init__(self, html):
        super().__init__()
        self.words, self.links, self.tags = "", [], set()
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.words = "" if tag == "body" else self.words
        self.links += [value for name, value in attrs if name == "href"]

    def handle_data(self, data):
        self.words += data


def sent(ticket, kind):
    mail.queue(ticket, kind)
    mail.send(Mail.objects.get(kind=kind))
    [message] = post.outbox
    return message


def parts(ticket, kind):
    message = sent(ticket, kind)
    [(html, mime)] = message.alternatives
    assert mime == "text/html"
    return message.body, Page(html)


@pytest.mark.parametrize("kind", mail.SUBJECTS)
def test_every_mail_is_text_and_html_with_the_same_words(ticket, kind):
    actions.store_artifact(ticket, "model.keras", ContentFile(b"weights"))
    text, page = parts(ticket, kind)
    own = "https://dml.example" + reverse("tickets:ticket", args=[ticket.pk])
    files = [line for line in text.splitlines() if "/tickets/files/" in line]
    assert page.words.split() == [word for word in text.split() if word not in files]
    assert page.links == [*files, own]
    assert "cells <b>&.csv" in text
    assert page.tags <= {"html", "head", "meta", "title", "style", "body", "p", "a", "br", "pre"}
    assert all(len(line) < 900 for line in text.splitlines()), "a longer line is sent encoded"


def test_a_files_name_is_its_link_and_a_command_is_left_as_it_is(ticket):
    actions.store_artifact(ticket, "receipt.json", ContentFile(b"{}"))
    html = sent(ticket, "done").alternatives[0][0]
    assert '">receipt.json</a></p>' in html
    assert "<pre>import keras\nmodel = keras.saving.load_model(&quot;model.keras&quot;)</pre>" in html


def test_an_address_that_was_not_confirmed_gets_no_links(ticket):
    actions.store_artifact(ticket, "model.keras", ContentFile(b"weights"))
    ticket.customer.confirmed = None
    ticket.customer.save()
    text, page = parts(ticket, "done")
    assert "/files/" not in text and len(page.links) == 1
    assert "Log in to download it." in text and "LINK_TO_RECEIPT" in text


def test_the_mail_of_a_payment_says_what_to_do_while_it_is_to_be_done(ticket):
    ticket.status = Status.PAID
    ticket.save()
    text, page = parts(ticket, "paid")
    assert "Now upload the file, until " in text
    assert "0.13 DML" in text
    post.outbox.clear()
    Ticket.objects.update(status=Status.TRAINING)
    mail.send(Mail.objects.get())
    assert "Now upload" not in post.outbox[0].body


def paid(ticket, *names):
    place = {"chain_id": 1, "block": 7, "block_hash": "0x1", "case": ticket.pk, "args": {}, "tx": "0x2"}
    for index, name in enumerate(names):
        ChainEvent.objects.create(name=name, log_index=index, **place)
    for _ in range(2):
        actions.payment_seen(ticket)
    return [row.kind for row in Mail.objects.all()]


def test_a_payment_is_mailed_once(ticket):
    assert paid(ticket, "Paid") == ["paid"]
    mail.queue(ticket, "paid")
    for _ in range(2):
        tasks.send_mail.fn(Mail.objects.get().pk)
    assert len(post.outbox) == 1


def test_a_payment_that_went_back_at_once_is_not_called_arrived(ticket):
    assert paid(ticket, "Paid", "Refunded") == ["refunded"]


@pytest.fixture
def server(monkeypatch):
    """What the mail server does when it is given a mail; afterwards it takes it, if it was not told to fail."""
    steps = []
    take = post.EmailMultiAlternatives.send

    def send(self, fail_silently=False):
        if steps:
            steps.pop(0)()
        return take(self, fail_silently)

    monkeypatch.setattr(post.EmailMultiAlternatives, "send", send)
    return steps


def failing(error):
    def step():
        raise error

    return step


def refusing(ticket):
    to = ticket.customer.email
    return failing(SMTPRecipientsRefused({to: (550, f"5.1.1 <{to}>: no such user".encode())}))


def later(**time):
    """So much time passes."""
    for row in Mail.objects.all():
        Mail.objects.filter(pk=row.pk).update(due=row.due - timedelta(**time))


def try_to_send():
    tasks.send_mail.fn(Mail.objects.get().pk)


def test_a_mail_that_fails_is_told_and_sent_later(ticket, server):
    server.append(failing(ConnectionRefusedError("no mail server")))
    mail.queue(ticket, "started")
    try_to_send()
    assert Mail.objects.get().sent is None
    assert "no mail server" in Alarm.objects.get().text
    try_to_send()
    assert post.outbox == []
    later(minutes=1)
    try_to_send()
    assert (Mail.objects.get().error, len(post.outbox)) == ("", 1)


def test_two_jobs_send_one_mail(ticket, server):
    mail.queue(ticket, "started")
    server.append(try_to_send)  # the other job, while the first one speaks to the server
    try_to_send()
    assert len(post.outbox) == 1
    assert ticket.events.filter(kind="mailed").count() == 1


def test_a_crash_while_it_is_sent_is_made_up_for(ticket, server):
    server.append(failing(SystemExit()))
    mail.queue(ticket, "started")
    with pytest.raises(SystemExit):
        try_to_send()
    try_to_send()
    assert post.outbox == []
    later(minutes=10)
    try_to_send()
    assert len(post.outbox) == 1


def test_an_address_that_is_refused_is_tried_less_and_less_and_told_once(ticket, server):
    server += [refusing(ticket)] * 9
    mail.queue(ticket, "started")
    waited = []
    for _ in range(9):
        try_to_send()
        waited.append(round((Mail.objects.get().due - timezone.now()) / timedelta(minutes=1)))
        later(hours=1)
    assert waited == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert ticket.events.filter(kind="mail failed").count() == 1


def test_another_error_is_told_too(ticket, server):
    server += [refusing(ticket), failing(TimeoutError("timed out"))]
    mail.queue(ticket, "started")
    for _ in range(2):
        try_to_send()
        later(hours=1)
    assert [event.text for event in ticket.events.filter(kind="mail failed")] == [
        "Training has started: SMTPRecipientsRefused 550",
        "Training has started: timed out",
    ]


def test_what_a_server_says_is_not_kept_for_it_may_name_the_address(ticket, server):
    to = ticket.customer.email
    refusals = [refusing(ticket), failing(SMTPDataError(554, f"rejected for {to}".encode()))]
    server += [*refusals, failing(ValueError(f'Invalid address "{to}"'))]
    mail.queue(ticket, "started")
    for _ in range(3):
        try_to_send()
        later(hours=1)
        Alarm.objects.update(cleared=timezone.now())
    said = [*Alarm.objects.values_list("text", flat=True), *ticket.events.values_list("text", flat=True)]
    assert len(said) == 6 and not [text for text in [*said, Mail.objects.get().error] if "@" in text]


def test_the_demo_knows_the_last_mail_by_its_subject():
    last = {kind for kind, subject in mail.SUBJECTS.items() if any(words in subject for words in LAST_MAILS)}
    assert last == set(OVER)
