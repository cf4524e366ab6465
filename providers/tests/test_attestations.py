"""Attestations: a nonce, a report made for it, what comes of it; and the list that admins keep."""

from base64 import b64encode
from datetime import timedelta

import httpx
import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.contrib.admin.models import LogEntry
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from rest_framework.test import APIClient

from accounts.models import ApiKey
from dmlsite.tests.people import admin_client, counted_afresh, person, problem  # noqa: F401
from dmlworker import protocol
from dmlworker.attested import Attested
from dmlworker.snp import AttestationError
from providers import actions, attestations
from providers.models import Attestation, Connection, Measurement, Provider, Standing
from providers.tests.forge import CHIP_ID, MEASUREMENT, Forge

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("counted_afresh")]
ASK = "/api/v1/provider/attestations"
SECRET = "s" * 64
WALLET = "0x" + "ab" * 20


@pytest.fixture
def forge(tmp_path, settings) -> Forge:
    settings.AMD_CERTIFICATES = tmp_path
    return Forge(tmp_path)


@pytest.fixture
def provider() -> Provider:
    fields = {"standing": Standing.ACTIVE, "wallet": WALLET, "deposit_gwei": 10**6}
    return Provider.objects.create(user=person("provider"), user_name="gpu-farm", **fields)


@pytest.fixture
def measurement(admin) -> Measurement:
    return attestations.allow(MEASUREMENT.hex(), "worker 0.1.0", "built by me", "admin@example.org")


@pytest.fixture
def admin() -> Client:
    return admin_client()


def worker(provider: Provider) -> APIClient:
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {ApiKey.issue(provider.user)}")
    return client


def made_for(forge: Forge, asked: dict, secret: str = SECRET, **changed: str) -> dict[str, str]:
    """What an honest worker answers; `changed`: of what it was asked."""
    asked = asked | changed
    session = protocol.session_of(secret)
    data = protocol.attestation_data(asked["site"], asked["nonce"], asked["wallet"], session)
    told = {"report": forge.report(data), "certificate": forge.certificate()}
    return {name: b64encode(value).decode() for name, value in told.items()} | {"session": session}


def attest(client: APIClient, forge: Forge, **changed: str):
    asked = client.post(ASK).json()
    return client.post(f"{ASK}/{asked['id']}", made_for(forge, asked, **changed))


def connect(provider: Provider, secret: str = SECRET, channel: str = "c") -> None:
    actions.connected(provider, channel, "CPU", protocol.session_of(secret) if secret else "")


def test_a_worker_that_proves_what_it_runs_in_is_attested_for_a_day(forge, provider, measurement):
    assert attestations.current(provider) is None
    answer = attest(worker(provider), forge)
    assert answer.status_code == 200, answer.content
    assert answer.json()["measurement"] == MEASUREMENT.hex()
    found = attestations.current(provider)
    assert (found.product, found.tcb, found.chip) == ("Milan", "3.3.3.3", CHIP_ID.hex())
    assert timedelta(hours=23) < found.expires - timezone.now() <= timedelta(days=1)
    assert bytes(found.report)[0x90:0xC0] == MEASUREMENT
    connect(provider), connect(provider, "", "d"), connect(provider, "t" * 64, "e")
    assert [attestations.is_attested(channel) for channel in "cde"] == [True, False, False]
    assert attestations.shows(provider, SECRET) and not attestations.shows(provider, "t" * 64)


def test_it_lasts_no_longer_than_the_certificate(forge, provider, measurement):
    client = worker(provider)
    asked = client.post(ASK).json()
    short = {"certificate": b64encode(forge.certificate(hours=1)).decode()}
    assert client.post(f"{ASK}/{asked['id']}", made_for(forge, asked) | short).status_code == 200
    assert attestations.current(provider).expires - timezone.now() <= timedelta(hours=1)


@pytest.mark.parametrize(
    "changed",
    [{"nonce": "0" * 64}, {"wallet": "0x" + "cd" * 20}, {"site": "another.example.org"}],
    ids=lambda changed: next(iter(changed)),
)
def test_a_report_is_for_one_nonce_one_provider_and_one_platform(forge, provider, measurement, changed):
    assert "not made for this request" in problem(attest(worker(provider), forge, **changed), 422)["detail"]
    assert attestations.current(provider) is None
    found = provider.attestations.get()
    assert (found.state, bool(found.report)) == (Attestation.State.REFUSED, True)


def test_a_report_is_for_the_worker_that_drew_the_secret(forge, provider, measurement):
    client = worker(provider)
    asked = client.post(ASK).json()
    stolen = made_for(forge, asked) | {"session": protocol.session_of("t" * 64)}
    assert "not made for this request" in problem(client.post(f"{ASK}/{asked['id']}", stolen), 422)["detail"]


def test_a_nonce_is_used_once_whatever_came_of_it(forge, provider, measurement):
    client = worker(provider)
    asked = client.post(ASK).json()
    told = made_for(forge, asked)
    problem(client.post(f"{ASK}/{asked['id']}", told | {"certificate": b64encode(b"junk").decode()}), 422)
    assert "used before" in problem(client.post(f"{ASK}/{asked['id']}", told), 409)["detail"]


def test_a_nonce_is_good_for_minutes(forge, provider, measurement):
    client = worker(provider)
    asked = client.post(ASK).json()
    Attestation.objects.update(asked=timezone.now() - attestations.FRESH)
    problem(client.post(f"{ASK}/{asked['id']}", made_for(forge, asked)), 409)
    Attestation.objects.update(asked=timezone.now() - attestations.FORGOTTEN)
    attestations.forget()
    assert not Attestation.objects.exists()


def test_what_was_refused_is_kept_for_a_month_and_what_was_believed_for_good(forge, provider, measurement):
    client = worker(provider)
    attest(client, forge), attest(client, forge, nonce="0" * 64)
    Attestation.objects.update(asked=timezone.now() - timedelta(days=29))
    attestations.forget()
    assert Attestation.objects.count() == 2
    Attestation.objects.update(asked=timezone.now() - timedelta(days=31))
    attestations.forget()
    assert Attestation.objects.get().state == Attestation.State.VALID


def test_amds_own_keys_are_what_counts(forge, provider, measurement, settings):
    settings.AMD_CERTIFICATES = settings.BASE_DIR / "providers" / "amd"
    assert "not signed by a key of AMD's" in problem(attest(worker(provider), forge), 422)["detail"]


def test_old_firmware_is_refused_where_the_operator_wants_newer(forge, provider, measurement, settings):
    settings.SNP_MINIMUM_TCB = {"Milan": (3, 0, 4, 0)}
    assert "too old (snp)" in problem(attest(worker(provider), forge), 422)["detail"]


@pytest.mark.parametrize("told", [{"report": "?"}, {"report": "A" * 4000}, {"session": "S"}, {"certificate": ""}])
def test_what_is_no_evidence_is_422_and_uses_no_nonce_up(forge, provider, measurement, told):
    client = worker(provider)
    asked = client.post(ASK).json()
    good = made_for(forge, asked)
    assert next(iter(told)) in problem(client.post(f"{ASK}/{asked['id']}", good | told), 422)["errors"]
    assert client.post(f"{ASK}/{asked['id']}", good).status_code == 200


def test_another_providers_nonce_does_not_exist(forge, provider, measurement):
    asked = worker(provider).post(ASK).json()
    other = Provider.objects.create(user=person("other"), user_name="other", standing=Standing.ACTIVE, wallet="0x1")
    problem(worker(other).post(f"{ASK}/{asked['id']}", made_for(forge, asked)), 404)


def test_who_cannot_work_cannot_attest(forge, provider):
    client = worker(provider)
    Provider.objects.update(standing=Standing.ACCUSED)
    problem(client.post(ASK), 409)
    problem(APIClient().post(ASK), 401)
    wrong = APIClient()
    wrong.credentials(HTTP_AUTHORIZATION="Bearer dml_wrong")
    problem(wrong.post(ASK), 401)


class ToPlatform(httpx.AsyncBaseTransport):
    """A worker's HTTP, to the platform itself, which asks the database in the test's own thread."""

    def __init__(self, key: str) -> None:
        self._key = f"Bearer {key}"

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        sent = (request.method, request.url.path, await request.aread(), "application/json")
        answer = await sync_to_async(APIClient().generic)(*sent, HTTP_AUTHORIZATION=self._key)
        return httpx.Response(answer.status_code, content=answer.content)


def test_the_worker_itself_is_attested_and_told_why_if_not(forge, provider, measurement, settings):
    """The worker's code against the platform's; the tests' own keys stand in for a processor's."""
    key = ApiKey.issue(provider.user)
    honest = Attested(ask=lambda data: (forge.report(data), forge.certificate()))
    replaying = Attested(ask=lambda data: (forge.report(bytes(64)), forge.certificate()))

    @async_to_sync
    async def present(worker: Attested) -> float:
        async with httpx.AsyncClient(transport=ToPlatform(key), base_url=settings.SITE_URL) as http:
            return await worker.present(http, attestations.site())

    assert 11.9 * 3600 < present(honest) <= 12 * 3600
    assert attestations.shows(provider, honest.secret)
    with pytest.raises(AttestationError, match="not made for this request"):
        present(replaying)
    assert not attestations.shows(provider, replaying.secret)


# --- The list ---------------------------------------------------------------------------------------------------------
def test_what_is_withdrawn_stops_to_count_at_once_and_both_have_a_reason(forge, provider, measurement, admin):
    attest(worker(provider), forge)
    connect(provider)
    page = reverse("admin:providers_measurement_changelist")
    press = {"_selected_action": measurement.pk, "button": "1"}
    admin.post(page, press | {"action": "withdraw", "reason": "its image has a hole"})
    assert not attestations.is_attested("c") and attestations.current(provider) is None
    assert "not on the platform's list" in problem(attest(worker(provider), forge), 422)["detail"]
    admin.post(page, press | {"action": "allow", "reason": "the hole was none"})
    assert attestations.is_attested("c")
    assert list(measurement.history.values_list("allowed", "reason", "actor")) == [
        (True, "built by me", "admin@example.org"),
        (False, "its image has a hole", "admin@example.org"),
        (True, "the hole was none", "admin@example.org"),
    ]


def test_a_measurement_is_added_with_a_reason_and_never_edited(admin):
    url = reverse("admin:providers_measurement_add")
    told = {"value": MEASUREMENT.hex(), "title": "worker 0.1.0"}
    assert admin.post(url, told).status_code == 200 and not Measurement.objects.exists()
    assert admin.post(url, told | {"value": "XY", "reason": "why"}).status_code == 200
    assert not Measurement.objects.exists()
    assert admin.post(url, told | {"reason": "built by me"}).status_code == 302
    found = Measurement.objects.get()
    assert (found.value, found.history.get().reason) == (MEASUREMENT.hex(), "built by me")
    assert LogEntry.objects.get().object_id == str(found.pk)
    change = reverse("admin:providers_measurement_change", args=[found.pk])
    assert admin.post(change, told | {"title": "another", "reason": "x"}).status_code == 403
    assert "built by me" in admin.get(change).content.decode()


def test_a_lesser_admin_adds_nothing():
    client = admin_client(is_superuser=False)
    assert client.get(reverse("admin:providers_measurement_add")).status_code == 403


# --- Pages ------------------------------------------------------------------------------------------------------------
def test_everybody_sees_until_when_and_what_and_the_provider_why_not(client, forge, provider, measurement):
    attest(worker(provider), forge)
    public = client.get(reverse("training:provider", args=["gpu-farm"])).content.decode()
    assert "Attested until" in public and MEASUREMENT.hex() in public and "worker 0.1.0" in public
    attest(worker(provider), forge, nonce="0" * 64)
    client.force_login(provider.user)
    own = client.get(reverse("providers:home")).content.decode()
    assert "Attested until" in own and "not made for this request" in own
    Attestation.objects.update(expires=timezone.now())
    assert "Attested until" not in client.get(reverse("training:provider", args=["gpu-farm"])).content.decode()


def test_it_goes_with_the_account(forge, provider, measurement):
    from providers import personal

    attest(worker(provider), forge)
    assert personal.export(provider.user)["attestations"][0]["state"] == "valid"
    personal.erase(provider.user)
    assert not Attestation.objects.exists()
    assert not Connection.objects.exists()
