"""Whatever dies, hangs or stutters while a ticket is trained: it settles, the providers are paid once, and the model is,
bit for bit, the one that an undisturbed training gives."""

import json
import resource
import signal

import pytest
from websockets.exceptions import ConnectionClosedError

from contracts.devchain import free_port
from dmlsite.testing import room
from dmlworker import protocol
from tests.conftest import up
from tests.faults.stage import CAST, QUICK, Linked, Stage


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    var = tmp_path_factory.mktemp("disturbed")
    with up(Linked(var, free_port(), free_port(), say=print, settings=QUICK | room(var))) as first, first.open:
        stage = Stage(first)
        yield stage
        stage.platform.stop()


@pytest.fixture(scope="module")
def reference(stage):
    """The global weights after each round of a training that nobody disturbs."""
    ticket = stage.begin()
    weights = stage.settled(ticket)
    return weights


def taken_over(stage, ticket, lost):
    """A lease lapsed without a result, and somebody else did the work. Returns the other one's lease."""
    assert (stage.again(ticket, lost).state, stage.again(ticket, lost).update) == ("expired", None)
    done = stage.lease(ticket, round=lost.round, shard=lost.shard, state="committed")
    assert done.provider != lost.provider
    return done


def test_1_a_worker_is_killed_in_the_middle_of_its_training(stage, reference):
    ticket = stage.begin()
    lost = stage.freeze(ticket)
    stage.child(lost.provider).signal(signal.SIGKILL)
    assert stage.settled(ticket) == reference
    taken_over(stage, ticket, lost)


def test_2_a_worker_is_killed_after_its_upload_and_before_its_commit(stage, reference):
    ticket = stage.begin()
    lost = stage.stored_only(ticket)
    link = stage.platform.links[lost.provider]
    stage.child(lost.provider).signal(signal.SIGKILL)
    link.cut()
    assert stage.settled(ticket) == reference
    assert taken_over(stage, ticket, lost).update == link.stored[-1], "the other one's bytes are the same"


def test_3_the_web_process_is_killed_in_the_middle_of_a_round(stage, reference):
    ticket = stage.begin()
    stage.under_way(ticket)
    stage.kill("web")
    assert stage.settled(ticket) == reference


def test_4_the_jobs_are_killed_while_they_close_a_round(stage, reference):
    ticket = stage.begin()
    stage.lease(ticket, round=2)
    with stage.closing(ticket, 2):
        stage.kill("jobs")
    assert stage.settled(ticket) == reference
    assert stage.rounds_noted(ticket) == 3, "each was closed once"


@pytest.mark.embedded
def test_5_redis_is_killed_and_comes_back_empty(stage, reference):
    ticket = stage.begin()
    stage.under_way(ticket)
    before = [stage.platform.children[name].process for name in ("web", "jobs", "scanner")]
    stage.kill_server("Redis")
    assert stage.settled(ticket) == reference
    assert [stage.platform.children[name].process for name in ("web", "jobs", "scanner")] == before


def test_5_redis_forgets_everything_and_the_sockets_are_woken_by_messages_all_the_same(stage):
    stage.ready(CAST)
    connections = {channel for (channel,) in stage.query("select channel from providers_connection")}
    stage.redis.flushdb()
    stage.until(lambda: stage.listening() == set(CAST), "every worker's socket to be woken by messages again")
    assert connections == {channel for (channel,) in stage.query("select channel from providers_connection")}


@pytest.fixture(scope="module")
def straggled(stage):
    """(ticket, lease, process, weights): a worker stood still until its lease had lapsed and the round was closed without
    it. The one who took over then left, so that the straggler was needed again."""
    ticket = stage.begin()
    lease = stage.freeze(ticket)
    process = stage.child(lease.provider).process
    stage.lease(ticket, round=lease.round + 1)
    other = stage.lease(ticket, round=lease.round, shard=lease.shard, state="committed").provider
    stage.child(other).end()
    stage.child(lease.provider).signal(signal.SIGCONT)
    stage.until(lambda: lease.provider in stage.online(), "the straggler to be heard again")
    return ticket, lease, process, stage.settled(ticket)


def test_7_a_straggler_comes_too_late_and_goes_on_with_other_leases(stage, reference, straggled):
    ticket, lease, process, weights = straggled
    assert weights == reference
    taken_over(stage, ticket, lease)
    assert process.poll() is None, "the same process"
    refusals = ("no longer wanted", "refused", "can't be done")
    assert any(f"{lease.name}: {refusal}" in stage.log(lease.provider) for refusal in refusals)
    later = [row for row in stage.leases(ticket) if row.provider == lease.provider and row.state == "committed"]
    assert later and min(row.round for row in later) > lease.round


def test_8_every_line_drops_its_connections_each_second(stage, reference):
    ticket = stage.begin()
    stage.under_way(ticket)
    for link in stage.platform.links.values():
        link.flap(1.0)
    assert stage.settled(ticket) == reference
    assert sum(link.cuts for link in stage.platform.links.values()) >= 6


def test_9_two_workers_with_one_key_share_the_leases_and_each_is_paid_once(stage, reference):
    with stage.second_worker("beta") as second:
        ticket = stage.begin(cast=("alpha", "beta"))
        stage.lease(ticket, provider="alpha", state="committed")
        stage.child("alpha").end()
        assert stage.settled(ticket) == reference
        logs = [stage.log("beta"), stage.log(second)]
    both = [row for row in stage.leases(ticket) if row.provider == "beta" and row.state == "committed"]
    assert len({row.channel for row in both}) == 2, "both worked"
    for row in both:
        # By both, where a slow machine made the platform offer it again; it counts once all the same.
        assert any(f"{row.name}: done" in log for log in logs)


def test_10_a_commit_for_a_closed_round_is_refused_with_the_reason(stage, straggled):
    ticket, lease, *_ = straggled
    done = stage.lease(ticket, round=lease.round, shard=lease.shard, state="committed")
    late = protocol.Commit(lease.protocol, done.update, 1, done.root)
    with stage.socket(lease.provider) as socket:
        socket.send(protocol.encode(protocol.Hello("test", 1)))
        socket.send(protocol.encode(late))
        answers = (protocol.decode(frame) for frame in socket)
        ack = next(answer for answer in answers if isinstance(answer, protocol.Ack))
    assert ack == protocol.Ack(late.lease, False, "this lease is closed")
    taken_over(stage, ticket, lease)
    stage.settled(ticket)


def test_11_a_worker_of_an_older_version_is_told_so_and_goes(stage):
    hello = json.loads(protocol.encode(protocol.Hello("dml-worker 0.0.1", 1))) | {"v": 1}
    with stage.socket("alpha") as socket:
        socket.send(json.dumps(hello))
        with pytest.raises(ConnectionClosedError) as closed:
            socket.recv(timeout=60)
    assert closed.value.rcvd.code == protocol.CLOSE_TOO_OLD
    assert closed.value.rcvd.reason == f"protocol version 1 is not spoken here, only version {protocol.VERSION}"


def test_12_a_worker_whose_disk_is_full_sends_what_it_has_declines_the_rest_and_stays(stage, reference):
    ticket = stage.begin()
    lease = stage.freeze(ticket)
    # Without a disk it could show an audit nothing: the others' work is audited.
    longer = "update providers_provider set streak = case when user_name = %s then 1000000 else 0 end returning id"
    stage.query(longer, lease.provider)
    child = stage.child(lease.provider)
    resource.prlimit(child.process.pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    stage.forget_shards(lease.provider)  # for the next round it has to fetch its shard again
    child.signal(signal.SIGCONT)
    assert stage.settled(ticket) == reference
    assert stage.again(ticket, lease).state == "committed"
    following = {"round": lease.round + 1, "shard": lease.shard}
    assert stage.lease(ticket, **following, state="declined").provider == lease.provider
    assert stage.lease(ticket, **following, state="committed").provider != lease.provider
    assert child.alive() and lease.provider in stage.online()
    resource.prlimit(child.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


@pytest.mark.embedded
def test_13_the_database_and_the_chain_are_killed_and_started_again(stage, reference):
    ticket = stage.begin()
    stage.under_way(ticket)
    stage.kill_server("database (PostgreSQL)")
    stage.lease(ticket, round=2, state="accepted")
    stage.kill_chain()
    assert stage.settled(ticket) == reference


def test_6_everything_is_killed_at_once_and_the_round_goes_on(stage, reference):
    ticket = stage.begin()
    stage.lease(ticket, round=2, state="accepted")
    [[moment]] = stage.query("select now()")
    stage.power_failure()
    assert stage.settled(ticket) == reference
    opened, closed = stage.round_times(ticket, 2)
    assert opened < moment < closed
    assert stage.rounds_noted(ticket) == 3, "each was closed once"


def test_after_all_this_the_books_balance_and_nobody_is_accused(stage, reference):
    [[last]] = stage.query("select coalesce(max(id), 0) from ledger_reconciliation")
    stage.until(lambda: stage.query("select 1 from ledger_reconciliation where id > %s", last), "a reconciliation")
    assert stage.query("select * from ledger_reconciliation where not balanced") == []
    assert stage.query("select kind, text from ledger_alarm") == []
    assert stage.query("select distinct standing from providers_provider") == [("active",)]
    assert stage.query("select distinct status from tickets_ticket") == [("settled",)]
    assert stage.chain.escrowed() == 0
