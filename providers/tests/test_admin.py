"""Moderation: a ban and its lifting need a reason, go to the chain, and are logged."""

from datetime import timedelta

import pytest
from django.contrib.admin.models import LogEntry
from django.urls import reverse
from django.utils import timezone

from contracts.devchain import mine_if_pending_finality
from contracts.devchain import test_key as rich
from dmlsite.testing import finalize
from dmlsite.tests.people import admin_client, person
from ledger import outbox
from ledger.models import ChainEvent, ChainTx
from ledger.scanner import Scanner
from providers import actions
from providers.models import Accusation, Provider, Standing, StandingEvent

pytestmark = pytest.mark.django_db(transaction=True)
LIST, CASES = reverse("admin:providers_provider_changelist"), reverse("admin:providers_accusation_changelist")
HOUR = timedelta(hours=1)
REASON = "Its owner sells the shards."


@pytest.fixture(autouse=True)
def no_messages(monkeypatch):
    monkeypatch.setattr("dmlsite.jobs._send", lambda *args: None)


@pytest.fixture
def provider():
    fields = {"standing": Standing.ACTIVE, "wallet": rich(1).address, "deposit_gwei": 10**6}
    return Provider.objects.create(user=person("provider"), user_name="gpu-farm", **fields)


def act(client, action, row, where=LIST, **form):
    return client.post(where, {"action": action, "_selected_action": row.pk, "button": "1", **form}, follow=True)


def test_a_ban_without_a_reason_only_asks_for_one(provider):
    client = admin_client()
    for form in ({}, {"reason": ""}, {"reason": "   "}):
        page = act(client, "ban", provider, **form)
        assert page.templates[0].name == "admin/reason.html"
        assert "challenge time" in page.content.decode()
        assert "everybody does on its public page" in page.content.decode()
    assert not Accusation.objects.exists()
    assert not LogEntry.objects.exists()


def test_a_ban_is_an_accusation_on_the_chain_and_logged(chain, provider):
    chain.send(chain.register_call(provider.pk.bytes), rich(1))
    page = act(admin_client(), "ban", provider, reason=REASON)
    assert page.redirect_chain[0][0] == reverse("admin:providers_provider_change", args=[provider.pk])
    case = Accusation.objects.get()
    assert list(case.cheats.all()) == [provider]
    assert case.honest == []
    assert case.evidence["decided_by"] == "admin@example.org"
    event = StandingEvent.objects.get()
    assert (event.new, event.reason, event.actor) == ("accused", REASON, "admin@example.org")
    assert {entry.object_id for entry in LogEntry.objects.all()} == {str(provider.pk), str(case.pk)}
    assert all(REASON in entry.change_message for entry in LogEntry.objects.all())
    _to_the_chain(chain)
    assert chain.accusation(case.pk).state == "Open"


def _to_the_chain(chain):
    for pk in outbox.due():
        outbox.send(ChainTx.objects.get(pk=pk))
    while mine_if_pending_finality(chain.w3):
        pass
    Scanner(chain).scan()


def registered(chain, provider):
    chain.send(chain.register_call(provider.pk.bytes), rich(1))
    finalize(chain)
    Scanner(chain).scan()


def test_an_accusation_is_lifted_with_a_reason(chain, provider):
    registered(chain, provider)
    client = admin_client()
    act(client, "ban", provider, reason=REASON)
    _to_the_chain(chain)
    case = Accusation.objects.get()
    page = act(client, "lift", case, CASES)
    assert page.templates[0].name == "admin/reason.html"
    act(client, "lift", case, CASES, reason="We were wrong.")
    provider.refresh_from_db()
    case.refresh_from_db()
    assert (provider.standing, case.state) == ("active", "lifted")
    assert ChainTx.objects.filter(key=f"acquit:{case.pk}", role="guardian").exists()
    assert StandingEvent.objects.last().actor == "admin@example.org"
    page = act(client, "lift", case, CASES, reason="again")
    assert "This accusation is closed." in page.content.decode()
    assert ChainTx.objects.filter(verb="acquit").count() == 1


def test_a_provider_is_cleared_from_its_own_page_too(chain, provider):
    registered(chain, provider)
    client = admin_client()
    assert "No accusation is open." in act(client, "lift", provider, reason="?").content.decode()
    act(client, "ban", provider, reason=REASON)
    act(client, "lift", provider, reason="We were wrong.")
    provider.refresh_from_db()
    assert provider.standing == "active"


@pytest.mark.parametrize("standing", [Standing.PENDING, Standing.LEFT, Standing.ACCUSED, Standing.BANNED])
def test_who_has_no_deposit_at_stake_cannot_be_banned(provider, standing):
    Provider.objects.update(standing=standing)
    page = act(admin_client(), "ban", provider, reason=REASON)
    assert "Only a provider with a deposit can be banned" in page.content.decode()
    assert not Accusation.objects.exists()
    assert not LogEntry.objects.exists()


def test_without_a_chain_nothing_is_half_done(provider, settings, tmp_path):
    from ledger import gateway

    gateway.chain.cache_clear()
    settings.CHAIN_DEPLOYMENT = tmp_path / "none.json"
    assert "does not answer" in act(admin_client(), "ban", provider, reason=REASON).content.decode()
    provider.refresh_from_db()
    assert provider.standing == "active"
    assert not Accusation.objects.exists() and not LogEntry.objects.exists()


def test_the_evidence_and_the_countdown_are_shown(chain, provider):
    chain.send(chain.register_call(provider.pk.bytes), rich(1))
    replay = {"provider": "gpu-farm", "replay": 1, "relative_distance": 0.987}
    case = actions.accuse([provider], [], "two replays", evidence={"round": 4, "replays": [replay]})
    url = reverse("admin:providers_accusation_change", args=[case.pk])
    client = admin_client()
    assert "begins when the accusation is on the chain" in client.get(url).content.decode()
    _to_the_chain(chain)
    actions.event_seen(ChainEvent.objects.get(name="Accused"))
    page = client.get(url).content.decode()
    assert "<th>relative distance</th><td>0.987</td>" in page
    assert "<th>round</th><td>4</td>" in page
    planned = ChainTx.objects.get(verb="executeBan").not_before
    assert f"{planned:%Y-%m-%d %H:%M:%S}" in page


def test_the_time_for_a_veto_runs_from_the_accusation_on_whether_or_not_the_ban_is_planned(provider):
    now = timezone.now()
    case = Accusation.objects.create(reason="two replays", executable_at=now + HOUR, lapses_at=now + 3 * HOUR)
    url, client = reverse("admin:providers_accusation_change", args=[case.pk]), admin_client()
    for page in (client.get(url), client.get(CASES)):
        assert f"{case.executable_at:%Y-%m-%d %H:%M:%S} UTC, in 59\xa0minutes" in page.content.decode()
    assert f"{case.lapses_at:%Y-%m-%d %H:%M:%S} UTC, in 2\xa0hours" in client.get(url).content.decode()
    Accusation.objects.update(executable_at=now - HOUR)
    assert f"since {now - HOUR:%Y-%m-%d %H:%M:%S} UTC" in client.get(url).content.decode()
    Accusation.objects.update(state=Accusation.State.LAPSED)
    page = client.get(url).content.decode()
    assert "not executed in time" in page and "since" not in page


def test_evidence_is_shown_as_text_whatever_it_holds(provider):
    replay = {"provider": "<b>gpu-farm</b>", "cosine": None, "segments": [1, 2]}
    case = Accusation.objects.create(reason="two replays", evidence={"replays": [replay]})
    page = admin_client().get(reverse("admin:providers_accusation_change", args=[case.pk])).content.decode()
    assert "&lt;b&gt;gpu-farm" in page and "<th>cosine</th><td>–</td>" in page
