"""What is held against a provider is shown to it, and to no other; it may answer while the case is open."""

import uuid

import pytest
from django.core.cache import cache
from django.urls import reverse

from dmlsite.tests.people import admin_client, person
from ledger.alarms import clear
from ledger.models import Alarm
from ledger.tasks import mail_alarm
from providers import actions
from providers.models import Accusation, Answer, Provider, Standing

pytestmark = pytest.mark.django_db
HOME = "/provider/"
CASE = Accusation.State


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    cache.clear()
    monkeypatch.setattr("dmlsite.jobs._send", lambda *args: None)


def provider(name: str) -> Provider:
    wallet = "0x" + uuid.uuid4().hex.ljust(40, "0")[:40]
    return Provider.objects.create(user=person(name), user_name=name, wallet=wallet, standing=Standing.ACCUSED)


@pytest.fixture
def case():
    """Against mallory and trudy; ada has nothing to do with it."""
    provider("ada")
    replays = [
        {
            "provider": name,
            "segment": number,
            "claimed": name.ljust(64, "0"),
            "relative_distance": 0.9,
            "result": f"result {name}",
            "honest_replays_apart": 0.001,
            "learning_rate": 0.125,
        }
        for number, name in enumerate(("mallory", "trudy"))
    ]
    evidence = {"ticket": str(uuid.uuid4()), "round": 3, "decided_by": "admin@example.org", "replays": replays}
    found = Accusation.objects.create(reason="Two replays show it.", evidence=evidence)
    found.cheats.set([provider("mallory"), provider("trudy")])
    return found


def enter(client, name):
    client.force_login(Provider.objects.get(user_name=name).user)
    return client


def answer(client, case, text="My GPU was overclocked."):
    return client.post(reverse("providers:answer", args=[case.pk]), {"text": text})


def test_the_accused_sees_the_evidence_of_its_own_work(client, case):
    page = enter(client, "mallory").get(HOME).content.decode()
    assert "Two replays show it." in page
    assert "mallory".ljust(64, "0") in page
    assert "relative distance" in page
    for named in ("result mallory", "honest replays apart", "0.001", "learning rate", "0.125"):
        assert named in page
    for hidden in ("trudy".ljust(64, "0"), "admin@example.org"):
        assert hidden not in page


def test_the_accused_answers_more_than_once_and_the_guardian_is_told(client, case):
    enter(client, "mallory")
    for text in ("My GPU was <b>overclocked</b>.", "And it rained in."):
        assert answer(client, case, text).url == HOME
    page = client.get(HOME).content.decode()
    assert "&lt;b&gt;overclocked" in page
    assert "rained in" in page
    assert "rained in" not in enter(client, "trudy").get(HOME).content.decode()
    assert Alarm.objects.get(kind="accusation answered").case == case.pk
    shown = admin_client().get(reverse("admin:providers_accusation_change", args=[case.pk])).content.decode()
    assert "&lt;b&gt;overclocked" in shown
    assert "rained in" in shown


def test_the_guardian_is_told_of_each_answer_while_an_earlier_one_waits(client, case, monkeypatch):
    told = list[str]()
    monkeypatch.setattr("ledger.tasks.mail_admins", lambda subject, text: told.append(text))
    for name, text in (("mallory", "Mine was the GPU."), ("trudy", "Mine was the rain."), ("trudy", "And the cat.")):
        answer(enter(client, name), case, text)
        mail_alarm.fn(Alarm.objects.get().pk)
        assert text in told[-1]
    assert len(told) == 3 and "the GPU" in told[-1]
    clear(Alarm.objects.get(), "admin@example.org")
    answer(client, case, "And the dog.")
    assert "the GPU" not in Alarm.objects.get(cleared=None).text


def test_for_others_there_is_no_such_case(client, case):
    assert answer(client, case).url.startswith(reverse("accounts:login"))
    enter(client, "ada")
    assert "Two replays" not in client.get(HOME).content.decode()
    assert answer(client, case).status_code == 404
    client.force_login(person("customer"))
    assert answer(client, case).status_code == 404
    assert not Answer.objects.exists()


@pytest.mark.parametrize("state", [CASE.LIFTED, CASE.EXECUTED, CASE.LAPSED])
def test_a_closed_case_is_shown_and_takes_no_answer(client, case, state):
    Accusation.objects.update(state=state)
    page = enter(client, "mallory").get(HOME).content.decode()
    assert "Two replays show it." in page
    assert "<textarea" not in page
    assert answer(client, case).status_code == 409


@pytest.mark.parametrize("text", ["", "   ", "x" * 4001])
def test_an_answer_has_something_to_say_and_an_end(client, case, text):
    assert answer(enter(client, "mallory"), case, text).status_code == 422
    assert not Answer.objects.exists()


def test_there_are_only_so_many(client, case, monkeypatch):
    monkeypatch.setattr(actions, "MAX_ANSWERS", 2)
    enter(client, "mallory")
    assert [answer(client, case).status_code for _ in range(3)] == [302, 302, 409]


def test_only_a_post_answers(client, case):
    assert enter(client, "mallory").get(reverse("providers:answer", args=[case.pk])).status_code == 405


def test_the_hash_of_the_evidence_tells_a_change(case):
    before = actions.evidence_hash(case)
    case.evidence["round"] = 4
    assert len(before) == 64
    assert actions.evidence_hash(case) != before
