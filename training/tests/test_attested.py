"""A ticket for attested providers: its leases, frames and bytes go to workers whose attestation holds, and to no others."""

from datetime import timedelta

import pytest
from asgiref.sync import async_to_sync
from django.utils import timezone

from accounts.models import ApiKey
from dmlsite.errors import Missing
from dmlworker import protocol
from dmlworker.protocol import Accept, Cancel, Hello, Offer, Welcome
from providers import attestations
from providers.models import Attestation, Connection, Measurement, Provider
from tickets.models import Status, Ticket
from training import actions, audits
from training.consumers import lease_of
from training.models import Assignment, Audit
from training.tests.conftest import close, commit, leases, make_provider
from training.tests.test_blobs import Caller
from training.tests.test_consumers import Socket

State = Assignment.State


def attest(provider: Provider, secret: str) -> Attestation:
    """As if a worker that drew this secret had been verified (providers/tests/test_attestations.py)."""
    value = "ab" * 48
    measurement = Measurement.objects.filter(value=value).first()
    measurement = measurement or attestations.allow(value, "worker 0.1.0", "built by me", "admin@example.org")
    told = {"presented": timezone.now(), "expires": timezone.now() + timedelta(hours=1), "measurement": measurement}
    state = Attestation.State.VALID
    return Attestation.objects.create(
        provider=provider, nonce=protocol.session_of(secret), session=protocol.session_of(secret), state=state, **told
    )


def attested(name: str) -> Provider:
    """With one worker online, which is."""
    provider = make_provider(name)
    attest(provider, name)
    Connection.objects.filter(provider=provider).update(session=protocol.session_of(name))
    return provider


@pytest.fixture
def run(run):
    Ticket.objects.update(attested=True)
    run.ticket.refresh_from_db()
    return run


def owners(run, number: int = 1) -> set[str]:
    return {lease.provider.user_name for lease in leases(run, number) if lease.state in Assignment.LIVE}


def test_it_waits_visibly_for_attested_providers_and_for_no_others(run):
    make_provider("ada"), make_provider("bob"), attested("cleo")
    assert not actions.start(run)
    assert [event.text for event in run.ticket.events.filter(kind="waiting")] == [
        "1 of 2 attested providers online",
    ]
    assert run.ticket.status == Status.UPLOADED
    attested("dora")
    assert actions.start(run)
    assert owners(run) == {"cleo", "dora"}


def test_others_get_the_tickets_of_others(run):
    make_provider("ada"), make_provider("bob")
    Ticket.objects.update(attested=False)
    run.ticket.refresh_from_db()
    assert actions.start(run)


def test_what_is_lost_goes_to_somebody_attested_or_waits(run):
    attested("cleo"), attested("dora"), make_provider("ada")
    assert actions.start(run)
    lease = leases(run)[0]
    actions.decline(lease.provider, lease_of(lease), "No space left on device")
    actions.reassign_overdue()
    [other] = owners(run)
    assert other in ("cleo", "dora") and other != lease.provider.user_name
    Attestation.objects.update(expires=timezone.now())
    for left in leases(run):
        if left.state == State.OFFERED:
            actions.decline(left.provider, lease_of(left), "No space left on device")
    actions.reassign_overdue()
    assert owners(run) == set()
    attested("emma")
    actions.reassign_overdue()
    assert owners(run) == {"emma"}


def test_one_whose_attestation_has_expired_gets_no_more_of_it(run):
    cleo, _ = attested("cleo"), attested("dora")
    assert actions.start(run)
    for lease in leases(run):
        commit(lease)
    Attestation.objects.filter(provider=cleo).update(expires=timezone.now())
    close(run)
    assert owners(run, 2) == {"dora"}
    attested("emma")
    open_ = [lease for lease in leases(run, 2) if lease.provider.user_name == "dora"]
    assert len(open_) == 2
    actions.decline(open_[0].provider, lease_of(open_[0]), "No space left on device")
    actions.reassign_overdue()
    assert owners(run, 2) == {"dora", "emma"}


@pytest.mark.parametrize("how", ["expired", "withdrawn"])
def test_what_was_offered_is_not_taken_or_read_when_it_does_not_hold_any_more(run, how):
    cleo, _ = attested("cleo"), attested("dora")
    assert actions.start(run)
    lease = next(lease for lease in leases(run) if lease.provider == cleo)
    assert [found.pk for found in actions.offers(cleo, "channel-cleo")] == [lease.pk]
    assert actions.readable_blob(cleo, lease.shard.blob_id, "cleo")
    if how == "expired":
        Attestation.objects.update(expires=timezone.now())
    else:
        attestations.change(Measurement.objects.get(), False, "its image has a hole", "admin@example.org")
    assert actions.offers(cleo, "channel-cleo") == []
    assert not actions.accept(cleo, lease_of(lease), "channel-cleo")
    with pytest.raises(Missing):
        actions.readable_blob(cleo, lease.shard.blob_id, "cleo")


def test_what_was_taken_in_time_may_be_committed_later(run):
    cleo, _ = attested("cleo"), attested("dora")
    assert actions.start(run)
    lease = next(lease for lease in leases(run) if lease.provider == cleo)
    assert actions.accept(cleo, lease_of(lease), "channel-cleo")
    Attestation.objects.update(expires=timezone.now())
    commit(lease)
    lease.refresh_from_db()
    assert lease.state == State.COMMITTED


def test_an_audit_of_it_is_for_an_attested_worker(run):
    cleo, _ = attested("cleo"), attested("dora")
    assert actions.start(run)
    lease = next(lease for lease in leases(run) if lease.provider == cleo)
    commit(lease)
    audit = Audit.objects.create(assignment=lease, why="by chance", deadline=timezone.now() + timedelta(minutes=1))
    assert audits.challenges(cleo, "channel-cleo") == [audit]
    assert audits.challenges(cleo, "another of cleo's") == []


@pytest.fixture
def lease(run) -> Assignment:
    """Of cleo, who has an attested worker that is away, and one that is not attested."""
    cleo, _ = attested("cleo"), attested("dora")
    assert actions.start(run)
    Connection.objects.filter(provider=cleo).delete()
    return next(lease for lease in leases(run) if lease.provider == cleo)


@async_to_sync
async def told(key: str, secret: str, accept: Assignment | None = None) -> list[object]:
    """What a worker hears after its welcome; it takes this lease, whether it was offered or not."""
    heard = []
    socket = Socket(key)
    socket._line.scope["headers"] += [(protocol.ATTESTED.lower().encode(), secret.encode())] if secret else []
    async with socket:
        await socket.says(Hello("test", 1))
        assert isinstance(await socket.hears(), Welcome)
        if accept:
            await socket.says(Accept(lease_of(accept)))
        while not await socket.silent():
            heard.append(await socket.hears())
    return heard


def test_of_two_workers_of_a_provider_only_the_attested_one_is_offered_it(lease):
    key = ApiKey.issue(lease.provider.user)
    assert [type(message) for message in told(key, "cleo")] == [Offer]
    assert told(key, "") == [] and told(key, "another secret") == []
    assert [type(message) for message in told(key, "", lease)] == [Cancel]
    lease.refresh_from_db()
    assert lease.state == State.OFFERED


def test_its_bytes_are_for_who_shows_the_secret(lease):
    worker = Caller(ApiKey.issue(lease.provider.user))
    for blob in (lease.shard.blob_id, lease.round.start_id, lease.round.run.spec_id):
        assert worker.get(blob).status_code == 404
        assert worker.get(blob, **{protocol.ATTESTED: "another secret"}).status_code == 404
        assert worker.get(blob, **{protocol.ATTESTED: "dora"}).status_code == 404
        assert worker.get(blob, **{protocol.ATTESTED: "cleo"}).status_code in (200, 302)
