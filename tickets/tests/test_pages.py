"""The customer's pages, as the owner, another customer, an admin and somebody without login see them."""

import io
import os
import zipfile
from datetime import timedelta

import pytest
from django.contrib.auth.models import Permission
from django.core import signing
from django.core.cache import cache
from django.core.files.base import ContentFile
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import transaction
from django.urls import reverse
from django.utils import timezone

from accounts.models import User
from contracts import devchain
from dmlsite.tests.people import verified
from ledger.gateway import key
from tickets import actions, bundle, mail, personal
from tickets.models import Artifact, Status, Ticket

pytestmark = pytest.mark.django_db
WALLET = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"
ORDER = {
    "file_name": "cells.csv",
    "file_size": 125_436,
    "target": "",
    "model_kind": "auto",
    "rounds": 10,
    "epochs": 1,
    "batch_size": 20,
    "optimizer": "sgd",
    "learning_rate": "0.1",
    "search": "off",
    "schedule": "constant",
    "strategy": "fedavg",
    "proximal": "0.01",
    "patience": "0",
    "compression": "none",
    "on_cheat": "refund",
    "rule": "mean",
    "reward": "accuracy-1",
    "task": "auto",
    "byzantine": "1",
    "price_scheme": "size-1",
    "payer": WALLET,
}


@pytest.fixture(autouse=True)
def own_files(settings, tmp_path):
    settings.MEDIA_ROOT = tmp_path
    cache.clear()


@pytest.fixture
def ada():
    return User.objects.create_user("ada@example.org", is_customer=True)


@pytest.fixture
def eve():
    return User.objects.create_user("eve@example.org", is_customer=True)


@pytest.fixture
def owner(client, ada):
    client.force_login(ada)
    return client


def make(ada, status=Status.QUOTED, **fields):
    now = timezone.now()
    values = {
        "file_name": "cells.csv",
        "file_size": 20,
        "price": 20_000,
        "payer": WALLET,
        "pay_by": now + timedelta(hours=1),
        "settle_by": now + timedelta(days=7),
        "signature": b"\1" * 65,
    }
    return Ticket.objects.create(customer=ada, status=status, **values | fields)


def page(name, ticket):
    return reverse(name, args=[ticket.pk])


PAGES = ["tickets:ticket", "training:progress"]
VERBS = ["tickets:pay", "tickets:upload", "tickets:cancel"]


@pytest.mark.parametrize("name", PAGES + VERBS)
def test_nobody_without_login_gets_in(client, ada, name):
    ticket = make(ada)
    answer = client.post(page(name, ticket)) if name in VERBS else client.get(page(name, ticket))
    assert answer.status_code == 302
    assert answer.url.startswith(reverse("accounts:login"))


@pytest.mark.parametrize("name", PAGES + VERBS)
def test_for_an_outsider_the_ticket_does_not_exist(client, ada, eve, name):
    client.force_login(eve)
    ticket = make(ada, Status.PAID)
    answer = client.post(page(name, ticket)) if name in VERBS else client.get(page(name, ticket))
    assert answer.status_code == 404
    ticket.refresh_from_db()
    assert ticket.status == Status.PAID


def test_an_admin_looks_but_does_not_act(client, ada):
    client.force_login(User.objects.create_superuser("root@example.org"))
    ticket = make(ada)
    text = client.get(page("tickets:ticket", ticket)).content.decode()
    assert "cells.csv" in text
    assert "Cancel this ticket" not in text
    assert client.post(page("tickets:cancel", ticket)).status_code == 404


def test_an_admins_password_alone_opens_no_ticket(client, ada, settings):
    settings.ADMIN_TWO_FACTOR = True
    root = User.objects.create_superuser("root@example.org")
    client.force_login(root)
    ticket, own = make(ada), make(root)
    for name in PAGES:
        assert client.get(page(name, ticket)).status_code == 404
        assert client.get(page(name, own)).status_code == 200
    verified(client, root)
    for name in PAGES:
        assert client.get(page(name, ticket)).status_code == 200


def test_an_admin_looks_only_with_the_right_to(client, ada):
    admin = User.objects.create_user("admin@example.org", is_staff=True)
    client.force_login(admin)
    ticket = make(ada)
    assert client.get(page("tickets:ticket", ticket)).status_code == 404
    admin.user_permissions.add(Permission.objects.get(codename="view_ticket"))
    assert client.get(page("tickets:ticket", ticket)).status_code == 200


def test_the_list_shows_ones_own_tickets_only(owner, ada, eve):
    make(ada)
    make(eve, file_name="secret.csv")
    text = owner.get(reverse("tickets:list")).content.decode()
    assert "cells.csv" in text
    assert "0.02 DML" in text
    assert "secret.csv" not in text


def test_an_order_is_quoted_and_shows_the_servers_price(owner, ada, chain):
    answer = owner.post(reverse("tickets:order"), ORDER)
    ticket = Ticket.objects.get()
    assert answer.url == page("tickets:ticket", ticket)
    assert (ticket.customer, ticket.price, ticket.rounds, ticket.learning_rate) == (ada, 20_000, 10, 0.1)
    text = owner.get(answer.url).content.decode()
    assert "0.02 DML" in text
    assert f'data-call="{page("tickets:pay", ticket)}"' in text


def test_whoever_orders_is_a_customer_from_then_on(client, chain):
    provider = User.objects.create_user("p@example.org", is_provider=True)
    client.force_login(provider)
    client.post(reverse("tickets:order"), ORDER)
    provider.refresh_from_db()
    assert provider.is_customer


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"file_size": ""}, "Choose a file."),
        ({"file_size": 0}, "The file is empty."),
        ({"file_size": 30 * 10**9}, "the most we take"),
        ({"rounds": 0}, "greater than or equal to 1"),
        ({"rounds": 101}, "less than or equal to 100"),
        ({"epochs": 51}, "less than or equal to 50"),
        ({"batch_size": 1025}, "less than or equal to 1024"),
        ({"learning_rate": "11"}, "less than or equal to 10"),
        ({"learning_rate": "nan"}, "Enter a number."),
        ({"model_kind": "forest"}, "Select a valid choice."),
        ({"task": "clustering"}, "Select a valid choice."),
        ({"rule": "krum"}, "Krum needs 5 providers to withstand a cheat; among 4 it withstands none."),
        ({"rule": "median", "byzantine": 0}, "protects nothing"),
        ({"rule": "trimmed", "byzantine": 2}, "needs 5 providers to withstand 2 cheats; among 4 it withstands 1."),
        ({"payer": ""}, "Connect the wallet that will pay."),
        ({"payer": "0x123"}, "not a wallet"),
        ({"payer": WALLET.replace("C8", "c8")}, "not a wallet"),
    ],
)
def test_a_bad_order_gets_a_clear_message_and_costs_nothing(owner, change, message):
    answer = owner.post(reverse("tickets:order"), ORDER | change)
    assert answer.status_code == 422
    assert message in answer.content.decode()
    assert not Ticket.objects.exists()


def test_a_dead_chain_is_said_as_such(owner, settings, tmp_path):
    settings.CHAIN_DEPLOYMENT = tmp_path / "nothing.json"
    answer = owner.post(reverse("tickets:order"), ORDER)
    assert answer.status_code == 503
    assert "The chain does not answer" in answer.content.decode()


@pytest.mark.parametrize(
    ("size", "shown"), [(1, ["0.01", "0.0098", "0.0002"]), (125_436, ["0.02", "0.0196"]), (10**9, ["100.00", "98.00"])]
)
def test_the_price_of_any_size_comes_with_its_breakdown(owner, size, shown):
    text = owner.get(reverse("tickets:price"), {"file_size": size}).content.decode()
    assert f"{size:,} bytes" in text and "2 %" in text
    for amount in shown:
        assert f"{amount} DML" in text


@pytest.mark.parametrize("size", ["", "0", "-1", "x", "²", "9" * 30])
def test_what_is_no_size_has_no_price(owner, size):
    assert owner.get(reverse("tickets:price"), {"file_size": size}).status_code == 422


COMPUTE = {
    "price_scheme": "compute-1",
    "samples": 60_000,
    "sample_shape": "28 × 28",
    "outputs": 10,
    "model_kind": "mlp",
}


def test_a_price_by_complexity_shows_each_part(owner):
    text = owner.get(reverse("tickets:price"), {"file_size": 60_000 * 784, **COMPUTE}).content.decode()
    for part in (
        '<p class="big">9.51 DML</p>',
        "4.71 DML: 47,040,000 bytes",
        "4.80 DML: 1,199,964 operations for a sample × 60,000 samples × 10 rounds × 1 local epochs",
        "= 719,978,400,000, at 1 DML per 150,000,000,000, rounded up to 0.01 DML",
        "9.3198 DML",
        "0.1902 DML, 2 %",
    ):
        assert part in text


@pytest.mark.parametrize(
    ("changed", "price"),
    [({"rounds": 20}, "14.31"), ({"epochs": 3}, "19.11"), ({"model_kind": "linear"}, "4.92"), ({"samples": 1}, "4.72")],
)
def test_a_price_by_complexity_follows_what_is_chosen(owner, changed, price):
    text = owner.get(reverse("tickets:price"), {"file_size": 60_000 * 784, **COMPUTE, **changed}).content.decode()
    assert f'<p class="big">{price} DML</p>' in text


@pytest.mark.parametrize(
    ("kind", "shape", "tokens"),
    [
        *[(kind, "30", "") for kind in ("auto", "linear", "mlp", "resmlp")],
        *[(kind, "28 × 28", "") for kind in ("auto", "linear", "mlp", "cnn", "resnet", "cnn1d", "gru", "transformer")],
        *[(kind, "50", "1000") for kind in ("auto", "linear", "mlp", "cnn1d", "gru", "transformer")],
    ],
)
def test_every_kind_of_model_has_a_price_by_complexity(owner, kind, shape, tokens):
    said = {"file_size": 1000, **COMPUTE, "model_kind": kind, "sample_shape": shape, "tokens": tokens}
    answer = owner.get(reverse("tickets:price"), said)
    assert answer.status_code == 200 and "operations for a sample" in answer.content.decode()


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"samples": ""}, "needs the number of samples"),
        ({"sample_shape": ""}, "needs the number of samples"),
        ({"outputs": ""}, "needs the number of samples"),
        ({"samples": "0"}, "Samples: "),
        ({"sample_shape": "28 by 28"}, "Write it like"),
        ({"sample_shape": "0"}, "No model takes samples of this shape"),
        ({"sample_shape": "99999999 × 99999999"}, "No model takes samples of this shape"),
        ({"sample_shape": "30", "model_kind": "cnn"}, "A CNN needs images"),
        ({"sample_shape": "30", "model_kind": "gru"}, "needs text, or a series of steps"),
        ({"sample_shape": "28 × 28", "tokens": "50"}, "No model takes samples of this shape"),
        ({"rounds": "0"}, "Rounds: "),
        ({"price_scheme": "free-1"}, "How the price is made: "),
        ({"samples": 10**10, "rounds": 100, "epochs": 50, "sample_shape": "3000 × 3000", "model_kind": "cnn"}, "than there can ever be"),
    ],
)  # fmt: skip
def test_what_is_missing_for_a_price_is_said(owner, changed, reason):
    answer = owner.get(reverse("tickets:price"), {"file_size": 1000, **COMPUTE, **changed})
    assert answer.status_code == 422 and reason in answer.content.decode()


def test_an_order_by_complexity_keeps_what_it_was_quoted_with(owner, ada, settings, chain):
    answer = owner.post(reverse("tickets:order"), ORDER | COMPUTE)
    ticket = Ticket.objects.get()
    assert answer.url == page("tickets:ticket", ticket)
    assert (ticket.price, ticket.samples, ticket.flops, ticket.flops_rate) == (4_820_000, 60_000, 1_199_964, 1_500_000_000)  # fmt: skip
    settings.FLOPS_PER_CENT = 1
    text = owner.get(answer.url).content.decode()
    assert (
        text.count("4.80 DML: 1,199,964 operations for a sample × 60,000 samples") == 2
    )  # beside the button, in the details
    assert "compute-1" in text and '<p class="big">4.82 DML</p>' in text


def test_an_order_by_complexity_without_the_samples_is_refused_with_the_reason(owner):
    answer = owner.post(reverse("tickets:order"), ORDER | COMPUTE | {"samples": ""})
    assert answer.status_code == 422 and "needs the number of samples" in answer.content.decode()
    assert not Ticket.objects.exists()


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("group", {"sharding": "group"}),
        ("window", {"group": "patient", "window": "3"}),
        ("window", {"window": "many"}),
        ("samples", {**COMPUTE, "samples": ""}),
        ("sample_shape", {**COMPUTE, "sample_shape": "28 by 28"}),
        ("outputs", {**COMPUTE, "outputs": ""}),
        ("model_kind", {**COMPUTE, "sample_shape": "30", "model_kind": "cnn"}),
        ("rounds", {"rounds": "101"}),
        ("payer", {"payer": "0x123"}),
    ],
)
def test_what_is_wrong_is_said_beside_its_field_in_an_open_fold_and_nothing_typed_is_lost(owner, field, change):
    given = ORDER | {"target": "mood", "leave_out": '["id"]', "seed": "77"} | change
    page = owner.post(reverse("tickets:order"), given).content.decode()
    assert f'id="id_{field}_error"><p class="error" role="alert">' in page
    assert page.count('class="error"') == 1
    before = page[: page.index(f'id="id_{field}_error"')]
    assert before.rfind("<details>") <= before.rfind("</details>")
    assert all(f'value="{value}"' in page for value in ("mood", "[&quot;id&quot;]", "77"))
    typed = [value for value in change.values() if value and value not in ("group", "compute-1", "mlp", "cnn")]
    assert all(f'value="{value}"' in page for value in typed)


def test_the_breakdown_stands_beside_the_pay_button_as_quoted(owner, ada):
    """By the ticket's own price: a rate that changed since has no say."""
    text = owner.get(page("tickets:ticket", make(ada, file_size=10**6, price=500_000))).content.decode()
    assert "1,000,000 bytes" in text and "0.50 DML" in text and "0.49 DML" in text and "0.01 DML, 2 %" in text


@pytest.mark.parametrize(
    ("status", "reloads"),
    [
        (Status.QUOTED, True),
        (Status.PAID, False),  # it would take away the file that somebody just chose
        (Status.UPLOADED, True),
        (Status.REFUNDED, False),
        (Status.EXPIRED, False),
    ],
)
def test_without_javascript_a_page_that_waits_reloads_itself(owner, ada, status, reloads):
    text = owner.get(page("tickets:ticket", make(ada, status))).content.decode()
    head = text.partition("</head>")[0]
    assert ('<noscript><meta http-equiv="refresh" content="10"></noscript>' in head) == reloads


def test_pay_gives_the_wallet_the_prepared_transaction(owner, chain, settings):
    owner.post(reverse("tickets:order"), ORDER)
    ticket = Ticket.objects.get()
    poor = owner.post(page("tickets:pay", ticket), headers={"HX-Request": "true"})
    assert poor.status_code == 409 and "Your wallet has 0.00 DML" in poor.content.decode()
    chain.send(chain.transfer_call(WALLET, ticket.price), key("admin"))
    devchain.fund(settings.CHAIN_RPC_URL, WALLET, 10**6)
    answer = owner.post(page("tickets:pay", ticket)).json()
    assert answer["transaction"]["from"] == WALLET
    assert answer["transaction"]["to"] == chain.deployment.token
    assert answer["chain"]["chainId"] == hex(settings.CHAIN_ID)
    assert Ticket.objects.get().status == Status.QUOTED


@pytest.mark.parametrize("fields", [{"status": Status.PAID}, {"pay_by": timezone.now() - timedelta(seconds=1)}])
def test_pay_is_refused_when_nothing_is_due(owner, ada, fields):
    answer = owner.post(page("tickets:pay", make(ada, **fields)), headers={"HX-Request": "true"})
    assert answer.status_code == 409
    assert answer.content.decode().startswith('<p class="error"')


# --- Upload -----------------------------------------------------------------------------------------------------------
def send(owner, ticket, data, **headers):
    return owner.post(page("tickets:upload", ticket), {"file": SimpleUploadedFile("cells.csv", data)}, headers=headers)


def test_upload_opens_with_the_payment_and_takes_one_file(owner, ada):
    assert send(owner, make(ada), b"a,b\n").status_code == 409
    ticket = make(ada, Status.PAID)
    assert send(owner, ticket, b"a,b\n1,2\n", **{"HX-Request": "true"}).status_code == 204
    ticket.refresh_from_db()
    assert ticket.status == Status.UPLOADED
    assert send(owner, ticket, b"a,b\n").status_code == 409


@pytest.mark.parametrize(
    ("data", "message"), [(b"x" * 21, "were quoted and paid. Please choose another one."), (b"", "The file is empty.")]
)
def test_a_refused_file_may_be_followed_by_the_right_one(owner, ada, data, message):
    ticket = make(ada, Status.PAID)
    answer = send(owner, ticket, data)
    assert answer.status_code == 422
    assert message in answer.content.decode()
    answer = send(owner, ticket, b"x" * 20)
    assert answer.url == page("tickets:ticket", ticket)


def test_upload_without_a_file_says_so(owner, ada):
    answer = owner.post(page("tickets:upload", make(ada, Status.PAID)))
    assert answer.status_code == 422
    assert "Please choose a file." in answer.content.decode()


def test_cancel_before_payment_and_not_during_training(owner, ada):
    ticket = make(ada)
    assert owner.get(page("tickets:cancel", ticket)).status_code == 405
    assert owner.post(page("tickets:cancel", ticket)).status_code == 302
    ticket.refresh_from_db()
    assert ticket.status == Status.EXPIRED
    assert owner.post(page("tickets:cancel", make(ada, Status.TRAINING))).status_code == 409


def test_the_live_part_shows_each_status(owner, ada):
    shown = {
        Status.QUOTED: "One confirmation in your wallet",
        Status.PAID: 'id="upload-file"',
        Status.UPLOADED: "being read and cut into parts",
        Status.TRAINING: "Training: round",
        Status.REFUNDED: "because",
        Status.EXPIRED: "was not paid",
    }
    for status, text in shown.items():
        answer = owner.get(page("training:progress", make(ada, status, outcome="because"))).content.decode()
        assert text in answer
        assert f'data-status="{status}"' in answer
    answer = owner.get(page("training:progress", make(ada, Status.SETTLED, accuracy=0.956))).content.decode()
    assert "95.6 %" in answer


# --- Files ------------------------------------------------------------------------------------------------------------
@pytest.fixture
def artifact(ada):
    return actions.store_artifact(make(ada, Status.SETTLED, accuracy=0.9), "model.keras", ContentFile(b"weights"))


@pytest.mark.embedded  # test_direct.py has the same from an object store
def test_a_signed_link_downloads_without_login(client, artifact, settings):
    answer = client.get(mail.link(artifact).removeprefix(settings.SITE_URL))
    assert answer.status_code == 200
    assert b"".join(answer) == b"weights"
    assert answer.headers["Content-Disposition"] == 'attachment; filename="model.keras"'


def test_an_old_link_says_how_to_renew_it_and_the_page_does(owner, artifact, settings):
    link = mail.link(artifact).removeprefix(settings.SITE_URL)
    settings.ARTIFACT_LINK_SECONDS = -1
    answer = owner.get(link)
    assert answer.status_code == 410
    assert "each link on it is a fresh one" in answer.content.decode()
    settings.ARTIFACT_LINK_SECONDS = 60
    assert "/tickets/files/" in owner.get(page("tickets:ticket", artifact.ticket)).content.decode()


def test_a_forged_link_is_a_404(client, artifact):
    forged = signing.TimestampSigner(key="another", salt=mail.SALT).sign(str(artifact.pk))
    for token in (forged, str(artifact.pk), "x"):
        assert client.get(reverse("tickets:artifact", args=[token])).status_code == 404
    assert Artifact.objects.count() == 1


def test_all_files_come_as_one_zip_to_their_owner_alone(owner, eve, client, artifact, monkeypatch):
    monkeypatch.setattr(bundle, "CHUNK", 1000)
    large = os.urandom(5500)
    actions.store_artifact(artifact.ticket, "receipt.json", ContentFile(large))
    url = page("tickets:everything", artifact.ticket)
    parts = list(owner.get(url))
    with zipfile.ZipFile(io.BytesIO(b"".join(parts))) as found:
        assert {name: found.read(name) for name in found.namelist()} == {
            "model.keras": b"weights",
            "receipt.json": large,
        }
    assert len(parts) > 5 and max(map(len, parts)) < 2000, "it is not made in memory as a whole"
    assert owner.get(page("tickets:everything", make(artifact.ticket.customer))).status_code == 404
    client.force_login(eve)
    assert client.get(url).status_code == 404


def test_a_ticket_can_be_trained_again_with_other_settings(chain, owner, eve, ada, client):
    ticket = make(ada, Status.SETTLED)
    Ticket.objects.filter(pk=ticket.pk).update(rounds=37, rule="median", seed=99, target="kind")
    again = f"{reverse('tickets:order')}?like={ticket.pk}"
    assert f"?like={ticket.pk}" in owner.get(reverse("training:progress", args=[ticket.pk])).content.decode()
    form = owner.get(again).context["form"]
    assert (form["rounds"].value(), form["rule"].value(), form["seed"].value()) == (37, "median", 99)
    assert (form["target"].value(), form["file_name"].value()) == ("kind", None)
    assert owner.post(again, ORDER | {"rounds": 5}).status_code == 302
    assert Ticket.objects.latest("created").rounds == 5
    for other in ("not-an-id", "00000000-0000-0000-0000-000000000000"):
        assert owner.get(f"{reverse('tickets:order')}?like={other}").status_code == 404
    client.force_login(eve)
    assert client.get(again).status_code == 404


# --- What a customer says of the data ---------------------------------------------------------------------------------
SAID = {
    "leave_out": '["id"]',
    "kinds": '{"zip": "category"}',
    "group": "patient",
    "sharding": "group",
    "class_weights": "balanced",
}


def test_what_is_said_of_the_data_is_kept_and_offered_again(owner, ada, chain):
    assert owner.post(reverse("tickets:order"), ORDER | SAID).status_code == 302
    ticket = Ticket.objects.get(customer=ada)
    assert (ticket.leave_out, ticket.kinds, ticket.group) == (["id"], {"zip": "category"}, "patient")
    assert (ticket.sharding, ticket.class_weights, ticket.window, ticket.horizon) == ("group", "balanced", 0, 1)
    again = owner.get(reverse("tickets:order"), {"like": ticket.pk}).content.decode()
    assert 'value="[&quot;id&quot;]"' in again and 'value="patient"' in again
    opened = "<details open>\n      <summary>More about the data"
    assert opened in again and opened not in owner.get(reverse("tickets:order")).content.decode()
    told = owner.get(page("training:progress", ticket)).content.decode()
    assert "without id; zip is a category; rows with the same patient stay together, a provider each" in told


def test_the_customer_may_want_attested_providers_only(owner, ada, chain):
    assert owner.post(reverse("tickets:order"), ORDER).status_code == 302
    assert not Ticket.objects.get(customer=ada).attested
    assert owner.post(reverse("tickets:order"), ORDER | {"attested": "True"}).status_code == 302
    ticket = Ticket.objects.get(customer=ada, attested=True)
    again = owner.get(reverse("tickets:order"), {"like": ticket.pk}).content.decode()
    assert '<option value="True" selected>Attested ones only</option>' in again
    assert "attested ones only" in owner.get(page("training:progress", ticket)).content.decode()
    assert owner.post(reverse("tickets:order"), ORDER | {"attested": "maybe"}).status_code == 422


def test_the_customer_may_allow_larger_parts_for_faster_providers(owner, ada, chain):
    assert owner.post(reverse("tickets:order"), ORDER | {"sharding": "speed"}).status_code == 302
    ticket = Ticket.objects.get(customer=ada)
    assert ticket.sharding == "speed"
    assert "more rows to the faster providers" in owner.get(page("training:progress", ticket)).content.decode()


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"sharding": "group"}, "name the column"),
        ({"group": "a", "window": "3"}, "one series"),
        ({"leave_out": '"id"'}, "not a list of columns"),
        ({"leave_out": "[1]"}, "not a list of columns"),
        ({"kinds": "[]x"}, "valid JSON"),
        ({"kinds": '["a"]'}, "not a kind for each column"),
        ({"kinds": '{"a": "list"}'}, "no kind of column"),
        ({"kinds": '{"a\\u0000": "text"}'}, "not readable text"),
        ({"window": "1001"}, "less than or equal to 1000"),
    ],
)
def test_what_makes_no_sense_of_any_data_is_refused(owner, said, words):
    answer = owner.post(reverse("tickets:order"), ORDER | said)
    assert answer.status_code == 422 and words in answer.content.decode()
    assert not Ticket.objects.exists()


def test_the_names_of_columns_are_erased_with_the_account(ada):
    said = {"leave_out": ["hidden"], "kinds": {"hidden": "text"}, "group": "hidden", "target": "hidden"}
    ticket = make(ada, Status.EXPIRED, **said)
    with transaction.atomic():
        personal.erase(ada)
    assert "hidden" not in str(Ticket.objects.filter(pk=ticket.pk).values().get())
