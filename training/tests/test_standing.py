"""What everybody may know of a provider, what admins see of all of them, and the deposit that deters."""

from decimal import Decimal

import pytest
from django.core.cache import cache
from django.urls import reverse
from django.utils import timezone

from dmlsite.tests.people import admin_client, person
from ledger.models import ChainEvent, Currency, Transfer
from providers import actions as providers
from providers.models import Accusation, Provider, Standing
from training import actions, standing
from training.consumers import lease_of
from training.models import Assignment, Audit
from training.tests.conftest import close, commit, leases, make_provider

State = Assignment.State


@pytest.fixture(autouse=True)
def no_counts():
    cache.clear()


def page_of(client, name):
    return client.get(reverse("training:provider", args=[name]))


@pytest.fixture
def worked(started):
    """Ada and bob have done round 1; ada's work was audited."""
    for lease in leases(started):
        commit(lease)
    close(started)
    ada = Provider.objects.get(user_name="ada")
    Provider.objects.filter(pk=ada.pk).update(streak=10)
    work = leases(started)[0] if leases(started)[0].provider_id == ada.pk else leases(started)[1]
    Audit.objects.create(assignment=work, why="drawn by chance", state="passed", deadline=timezone.now())
    Transfer.objects.create(
        key="x", kind="posted", currency=Currency.DML, amount=31_000, debit="escrow:x", credit=f"provider:{ada.wallet}"
    )
    ada.refresh_from_db()
    return ada


# --- The public page --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("who", ["anonymous", "owner", "other"])
def test_everybody_sees_the_same(client, worked, started, who):
    if who != "anonymous":
        client.force_login(worked.user if who == "owner" else person("other"))
    page = page_of(client, "ada").content.decode()
    for shown in (
        worked.wallet,
        "1 passed",
        "10 in a row",
        "1 ticket",
        "0.031 DML",
        '<p class="big" id="score">90</p>',
    ):
        assert shown in page
    for hidden in (worked.user.email, str(started.ticket_id), started.ticket.customer.email, "a.csv"):
        assert hidden not in page.replace("ada@example.org", worked.user.email if who == "other" else "")


def test_a_page_is_found_by_name_or_wallet_in_any_case(client, worked):
    for name in ("ada", "ADA", worked.wallet, worked.wallet.upper().replace("0X", "0x")):
        assert page_of(client, name).status_code == 200
    Provider.objects.create(user=person("new"), user_name="new")
    for name in ("nobody", "new", "0x" + "1" * 40, str(worked.pk)):
        assert page_of(client, name).status_code == 404


def test_a_ban_is_public_with_its_reason_and_the_hash_of_the_evidence(client, worked):
    case = Accusation.objects.create(
        reason="Two replays show it.", evidence={"ticket": "secret-ticket"}, state=Accusation.State.EXECUTED
    )
    case.cheats.add(worked)
    args = {"provider": worked.wallet}
    place = {"chain_id": 1, "block": 7, "block_hash": "0x1", "log_index": 0, "case": case.pk, "args": args}
    event = ChainEvent.objects.create(name="Banned", tx="0x" + "ab" * 32, **place)
    providers.event_seen(event)
    page = page_of(client, "ada").content.decode()
    for shown in ("Two replays show it.", providers.evidence_hash(case), str(case.pk), event.tx, 'id="score">0<'):
        assert shown in page
    assert "secret-ticket" not in page


# --- Scores -----------------------------------------------------------------------------------------------------------
def test_only_what_was_taken_counts(started):
    first, second = leases(started)
    assert standing.scores([first.provider]) == {first.provider_id: None}
    commit(first)
    actions.decline(second.provider, lease_of(second), "disk full")
    assert standing.delivered([first.provider])[first.provider_id] == [True]
    assert standing.scores([second.provider])[second.provider_id] is None
    again = started.shards.get(pk=second.shard_id).assignments.get(state=State.OFFERED)
    actions.accept(again.provider, lease_of(again), "channel")
    Assignment.objects.filter(pk=again.pk).update(state=State.EXPIRED)
    assert standing.delivered([again.provider])[again.provider_id] == [False, True]


def test_what_came_too_late_for_a_quorum_says_nothing(started):
    lease = leases(started)[0]
    Assignment.objects.filter(pk=lease.pk).update(
        state=State.EXPIRED, accepted=timezone.now(), committed=timezone.now()
    )
    assert standing.scores([lease.provider]) == {lease.provider_id: None}


# --- The admin's view -------------------------------------------------------------------------------------------------
URL = "admin:training_standing"


def test_the_distribution_counts_every_provider_once(worked):
    make_provider("cleo")
    Provider.objects.create(user=person("new"), user_name="new")
    for bars in standing.distribution().values():
        assert sum(bar.count for bar in bars) == 3
    found = {bar.label: bar.count for bar in standing.distribution()["score"]}
    assert (found["none yet"], found["80–89"], found["90–100"]) == (1, 1, 1)


@pytest.mark.django_db
def test_only_admins_who_may_see_providers_see_it(client):
    assert client.get(reverse(URL)).url.startswith(reverse("admin:login"))
    client.force_login(person("customer"))
    assert client.get(reverse(URL)).status_code == 302
    assert admin_client(is_superuser=False).get(reverse(URL)).status_code == 403


@pytest.mark.parametrize("rate", ["", "0.002", "-1", "nonsense", "1e999", "NaN"])
def test_the_page_is_shown_whatever_is_typed_and_without_a_chain(worked, settings, monkeypatch, rate):
    from contracts.chain import Unavailable

    def silent():
        raise Unavailable("no node")

    monkeypatch.setattr("training.admin.chain", silent)
    answer = admin_client().get(reverse(URL), {"rate": rate})
    page = answer.content.decode()
    assert answer.status_code == 200
    assert "the chain does not answer" in page
    assert ("The rate is a number" in page) == (rate not in ("", "0.002"))


def test_the_page_compares_with_the_deposit_that_the_contract_asks(chain, worked, settings):
    settings.AUDIT_FIRST, settings.AUDIT_PERCENT = 10, 8
    page = admin_client().get(reverse(URL), {"rate": "1"}).content.decode()
    assert "too little" in page and "enough" in page
    assert "0.001" in page


# --- The arithmetic ---------------------------------------------------------------------------------------------------
def test_the_deposit_outweighs_the_gain():
    assert standing.needed(1000, 0.5) == 1000
    assert standing.needed(1000, 0.25) == 3000
    assert standing.needed(1000, 1.0) == 0
    assert standing.needed(1, 0.4) == 2
    assert standing.needed(1000, 0.0) is None


def test_it_follows_the_settings(settings):
    settings.PROVIDERS_PER_TICKET, settings.AUDIT_FIRST, settings.AUDIT_PERCENT = 4, 10, 5
    gain = standing.gain_of(130_000)
    assert gain == 31_850
    rows = {row.streak: row for row in standing.deterrence(gain, Decimal("0.5"))}
    assert (rows[0].probability, rows[0].deposit) == (1.0, 0)
    assert (rows[10].deposit, rows[10].gwei) == (31_850 * 9, 31_850 * 9 * 500)
    assert rows[50].deposit == rows[1000].deposit == 605_150
    assert standing.deterrence(gain, Decimal())[1].gwei is None
    settings.AUDIT_FIRST = settings.AUDIT_PERCENT = 0
    assert standing.deterrence(gain, Decimal(1))[0].deposit is None


def test_a_new_wallet_has_no_streak(worked, monkeypatch):
    """Trust is the wallet's."""
    Provider.objects.filter(pk=worked.pk).update(standing=Standing.LEFT, deposit_from="0x" + "9" * 40)
    place = {"chain_id": 1, "block": 7, "block_hash": "0x1", "log_index": 0, "tx": "0x1", "case": worked.pk}
    for number, wallet in enumerate((worked.wallet, "0x" + "9" * 40)):
        args = {"provider": wallet, "stake": 10**6}
        event = ChainEvent.objects.create(name="Registered", **place | {"args": args, "log_index": number})
        providers.event_seen(event)
        worked.refresh_from_db()
        assert worked.streak == (10 if wallet != "0x" + "9" * 40 else 0)
        Provider.objects.filter(pk=worked.pk).update(standing=Standing.LEFT)
