"""The client against a whole platform: chain, database, jobs, workers, each a process."""

import asyncio
import hashlib
import io
import json
import logging
import pickle
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import httpx
import numpy as np
import pandas
import pytest
from sklearn.datasets import load_iris

from contracts.devchain import free_port
from dmlclient import (
    DML,
    AsyncDML,
    Damaged,
    DataError,
    Happened,
    InvalidInput,
    NetworkError,
    NotFound,
    NotLoggedIn,
    Payment,
    Refunded,
    Round,
    Sent,
    Ticket,
    WrongState,
    requests,
)
from dmlclient.data import data_of
from dmlclient.flow import Send, Sleep
from dmlclient.progress import Progress
from dmlworker.datasets import samples


@pytest.fixture(scope="module")
def iris() -> pandas.DataFrame:
    source = load_iris(as_frame=True)
    return source.data.assign(species=[source.target_names[label] for label in source.target])


@pytest.fixture(scope="module")
def trained(platform, key, wallet, iris, tmp_path_factory):
    """A settled ticket, by the shortest way, and what was told meanwhile."""
    platform.workers(4)
    told = []
    with DML(platform.url, key) as client:
        path = tmp_path_factory.mktemp("data") / "iris.csv"
        iris.to_csv(path, index=False)
        job = client.train(path, target="species", wallet=wallet, rounds=15, batch_size=8, seed=3, tell=told.append)
        folder = tmp_path_factory.mktemp("model")
        return job.result(folder, tell=told.append), told


def test_a_file_becomes_a_model_by_one_line(trained, iris):
    result, _ = trained
    assert (result.ticket.status, result.ticket.fields["target"]) == ("settled", "species")
    assert result.accuracy >= 0.9
    assert {"model.keras", "model.json", "model.weights.h5", "receipt.json"} <= set(result.files)
    found = result.model().predict(iris.drop(columns="species").to_numpy(np.float32), verbose=0).argmax(axis=1)
    assert np.mean(found == load_iris().target) >= 0.9


def test_what_happens_is_told_in_order(trained):
    _, told = trained
    assert isinstance(told[0], Ticket)
    assert [event.new for event in told if isinstance(event, Happened) and event.new] == [
        "paid",
        "uploaded",
        "training",
        "settled",
    ]
    assert [event for event in told if isinstance(event, Sent)][-1].done == told[0].file_size
    closed = [event.number for event in told if isinstance(event, Round) and event.accuracy is not None]
    assert sorted(set(closed)) == list(range(1, 16))
    assert len(told) == len(set(map(str, told)))


def test_the_receipt_is_the_one_that_came_with_the_model(client, trained):
    result, _ = trained
    assert client.receipt(result.ticket) == result.files["receipt.json"].read_bytes()
    assert json.loads(client.receipt(result.ticket))["ticket"] == result.ticket.id


def test_what_is_here_is_not_fetched_again_and_what_is_damaged_is(client, trained):
    result, _ = trained
    folder, whole = result.files["model.keras"].parent, result.files["model.keras"].read_bytes()
    client.download(result.ticket, folder)  # the card may have come meanwhile
    result.files["model.keras"].write_bytes(whole[:-1])
    had = {path.name for path in folder.iterdir()}
    told = []
    again = client.download(result.ticket, folder, tell=told.append)
    assert [event.name for event in told if event.name in had] == ["model.keras"]
    assert again.files["model.keras"].read_bytes() == whole


@pytest.mark.embedded  # it spoils a file on the disk
def test_a_file_that_is_not_what_the_platform_says_is_not_kept(client, platform, trained, tmp_path):
    result, _ = trained
    [[name, kept]] = platform.query(
        "select name, file from tickets_artifact where ticket_id = %s and name = 'model.json'", result.ticket.id
    )
    stored = platform.var / "files" / kept
    whole = stored.read_bytes()
    stored.write_bytes(whole.replace(b"a", b"b"))
    try:
        with pytest.raises(Damaged, match=name):
            client.download(result.ticket, tmp_path)
    finally:
        stored.write_bytes(whole)
    assert not list(tmp_path.glob("*model.json*"))


def test_the_history_has_it_and_the_timeline_is_whole(client, trained):
    result, _ = trained
    assert result.ticket.id in {ticket.id for ticket in client.tickets()}
    assert [ticket.id for ticket in client.tickets(limit=1, offset=0)] == [client.tickets()[0].id]
    assert client.ticket(result.ticket.id).events[0].kind == "quoted"
    assert len(client.rounds(result.ticket)) == 15


def test_async_does_the_same(platform, key, wallet, tmp_path):
    """Arrays this time, two at once."""
    platform.workers(4)
    source = load_iris()

    async def both() -> list[float]:
        async with AsyncDML(platform.url, key) as client:
            made = [
                await client.train((source.data, source.target), wallet=wallet, rounds=2, batch_size=8, seed=seed)
                for seed in (1, 2)
            ]
            events = [event async for event in made[0].follow()]
            assert any(isinstance(event, Round) for event in events)
            results = await asyncio.gather(*(job.result(tmp_path / job.id) for job in made))
            assert {ticket.id for ticket in await client.tickets()} >= {job.id for job in made}
            return [result.accuracy for result in results]

    assert all(found > 0.3 for found in asyncio.run(both()))


def test_a_file_that_cannot_be_trained_on_is_refunded_with_the_reason(client, wallet, platform, tmp_path):
    platform.workers(4)
    path = tmp_path / "words.csv"
    path.write_bytes(b"a,target\n" + b"1,x\n" * 80)
    job = client.train(path, wallet=wallet)
    with pytest.raises(Refunded, match="cannot be trained on") as caught:
        job.result(tmp_path)
    assert caught.value.ticket.status == "refunded"


def test_a_ticket_is_paid_in_a_browser_and_gone_on_with(client, platform, customer, iris):
    """Ordered by one process, paid by a wallet elsewhere, gone on with by another."""
    ticket = client.quote(iris, customer.wallet.address, target="species")
    assert httpx.get(client.link(ticket), follow_redirects=True).status_code == 200
    customer.sign(customer.call("POST", f"tickets/{ticket.id}/payment"))
    told = []
    job = client.train(iris, ticket=ticket.id, tell=told.append)
    assert told[0].link == client.link(ticket) and told[0].tx == ""
    assert job.ticket.status in ("uploaded", "training", "settled")
    with pytest.raises(WrongState):
        client.upload(ticket, iris)


def paid(client, wallet, data: bytes, tmp_path: Path) -> tuple[Ticket, Path]:
    path = tmp_path / "data.csv"
    path.write_bytes(data)
    ticket = client.quote(path, wallet.address)
    return client.pay(ticket, wallet), path


def test_an_upload_goes_on_where_the_line_broke(platform, client, key, wallet, line, monkeypatch, tmp_path):
    monkeypatch.setattr(requests, "PART", 4000)
    data = samples.breast_cancer_csv()[:50_000]
    ticket, path = paid(client, wallet, data, tmp_path)
    line._cuts += [1000, 9000, 15_000]
    told = []
    with DML(f"http://localhost:{line.port}", key) as distant:
        distant.upload(ticket, path, tell=told.append)
    assert line.broken == 3
    offsets = [event.done for event in told]
    assert offsets == sorted(offsets) and offsets[-1] == len(data)
    [[sha256]] = platform.query("select sha256 from tickets_dataset where ticket_id = %s", ticket.id)
    assert sha256 == hashlib.sha256(data).hexdigest()
    assert client.ticket(ticket).status != "paid"


def test_before_training_it_is_cancelled_and_the_money_comes_back(platform, client, wallet, customer, tmp_path):
    ticket, _ = paid(client, wallet, b"a,b\n1,2\n", tmp_path)
    assert client.cancel(ticket).status == "refunded"
    with pytest.raises(Refunded, match="You cancelled"):
        client.result(ticket, tmp_path)


def test_the_check_says_what_is_in_a_file(client, iris):
    facts = client.check(iris, "species")
    assert (facts["samples"], facts["target"], len(facts["classes"])) == (150, "species", 3)
    with pytest.raises(InvalidInput, match="The columns are"):
        client.check(iris, "weight")


def test_the_platform_refuses_in_its_own_words(client, platform, iris, wallet):
    with pytest.raises(InvalidInput, match="round: There is no such option") as caught:
        client.quote(iris, wallet.address, round=5)
    assert caught.value.status == 422 and list(caught.value.errors) == ["round"]
    with pytest.raises(InvalidInput, match="payer"):
        client.quote(iris, "0x12")
    with pytest.raises(NotFound, match="You have no such ticket"):
        client.ticket("00000000-0000-4000-8000-000000000000")
    with DML(platform.url, "dml_wrong") as stranger, pytest.raises(NotLoggedIn, match="not known"):
        stranger.tickets()


def test_attested_providers_only_may_be_ordered(client, customer, iris):
    ticket = client.quote(iris, customer.wallet.address, target="species", attested=True)
    assert ticket.fields["attested"] is True
    assert client.quote(iris, customer.wallet.address, target="species").fields["attested"] is False


def test_nobody_there_is_a_network_error_after_some_tries(monkeypatch, iris):
    monkeypatch.setattr(requests, "TRIES", 2)
    with DML(f"http://localhost:{free_port()}", "dml_x") as client:
        with pytest.raises(NetworkError, match="localhost does not answer"):
            client.tickets()
        with pytest.raises(NetworkError):
            client.cancel("00000000-0000-4000-8000-000000000000")


def test_what_must_not_be_done_twice_is_not_asked_twice(client, platform, key, line, customer, iris):
    """The line breaks when the request has gone out: it may have been heard."""
    ticket = client.quote(iris, customer.wallet.address)
    line._cuts += [1]
    with DML(f"http://localhost:{line.port}", key) as distant, pytest.raises(NetworkError):
        distant.cancel(ticket)
    line._cuts += [1]
    with DML(f"http://localhost:{line.port}", key) as distant:
        assert distant.ticket(ticket).id == ticket.id  # and what may be, is


def test_the_key_is_nowhere_to_be_read(platform, key, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    with DML(platform.url, key) as client:
        client.tickets()
        said = repr(client) + str(vars(client))
    with pytest.raises(TypeError, match="holds a key"):
        pickle.dumps(client)
    out = "".join(capfd.readouterr())
    assert key not in said + caplog.text + out


def test_a_platform_that_is_away_for_a_while_is_waited_for(platform, client, key, line, customer, iris, monkeypatch):
    monkeypatch.setattr(requests, "TRIES", 1)
    monkeypatch.setattr(requests, "LATEST", 0.1)
    ticket = client.cancel(client.quote(iris, customer.wallet.address))
    line._cuts += [1] * 5
    with DML(f"http://localhost:{line.port}", key) as distant:
        assert distant.wait(ticket, tell=lambda event: None).status == "expired"
    assert line.broken == 5


def test_a_quiet_ticket_is_looked_at_less_and_less_often(client, customer, iris):
    """The first ten minutes, in which nothing happens, without waiting for them."""
    flow, pauses, answer = client._platform.follow(client.quote(iris, customer.wallet.address)), [], None
    while sum(pauses) < 600:
        match flow.send(answer):
            case Send(request):
                answer = client._http.send(request)
            case Sleep(seconds):
                pauses, answer = [*pauses, seconds], None
            case _:
                answer = None
    assert (pauses[0], max(pauses)) == (requests.SOONEST, requests.QUIET)
    assert len(pauses) < 60


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


EVENTS = [
    Payment("http://dml.example/tickets/1/"),
    Sent(50, 200),
    Happened(datetime.now(UTC), "moved", "a\x1b[2Jb", new="x"),
]


def test_on_a_terminal_a_bar_shows_how_far_it_is_and_nothing_commands_the_terminal():
    out = Terminal()
    with Progress(out) as shown:
        for event in EVENTS:
            shown(event)
    text = out.getvalue()
    assert "Please pay at http://dml.example/tickets/1/\n" in text
    assert "[######..................]  25% Sending the data" in text
    assert "\x1b[2J" not in text and "x: a [2Jb\n" in text


def test_elsewhere_there_is_no_bar_but_where_to_pay(client, customer, iris, capfd):
    out = io.StringIO()
    with Progress(out) as shown:
        for event in EVENTS:
            shown(event)
    assert out.getvalue() == "Please pay at http://dml.example/tickets/1/\n"
    client.quote(iris, customer.wallet.address)
    assert "".join(capfd.readouterr()) == ""


def test_it_loads_with_httpx_alone():
    code = "import sys, dmlclient, dmlclient.__main__; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"django", "numpy", "pandas", "sklearn", "keras", "tensorflow", "eth_account", "web3"} & set(loaded)


@pytest.mark.parametrize("url", ["", "dml.example", "ftp://dml.example", "http://", "https://a:b:c"])
def test_what_is_no_address_is_refused_here(url):
    with pytest.raises(DataError, match="no address"):
        DML(url, "dml_x")


def test_plain_http_to_far_away_warns():
    with pytest.warns(UserWarning, match="unprotected"):
        DML("http://dml.example", "dml_x")


@pytest.mark.parametrize("given", [3, [1, 2], "no/such/file.csv", ".", (np.array([{}]), np.array([1]))])
def test_what_is_no_data_is_refused_here(given):
    with pytest.raises(DataError):
        data_of(given)


def test_arrays_and_tables_are_written_without_pickle(iris):
    made = data_of((load_iris().data, np.array(["a"] * 150)))
    found = np.load(io.BytesIO(made.read(0, made.size)), allow_pickle=False)
    assert found["x"].shape == (150, 4) and set(found["y"]) == {"a"}
    table = data_of((iris.drop(columns="species"), iris["species"]))
    back = pandas.read_csv(io.BytesIO(table.read(0, table.size)))
    assert list(back.columns)[-1] == "target" and len(back) == 150


def test_a_file_that_changes_meanwhile_is_noticed(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b"x" * 100)
    made = data_of(path)
    path.write_bytes(b"x" * 50)
    with pytest.raises(DataError, match="changed"):
        made.read(0, 100)
