"""The main job end to end, in real processes: web, jobs, scanner, chain, database, Redis and four workers."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from uuid import UUID

import httpx
import pytest

from contracts.devchain import test_key as rich
from dmlworker.datasets import samples
from ledger import money
from tests.conftest import Live

ROOT = Path(__file__).resolve().parent.parent
LOAD_BACK = """
import json, sys
import keras, numpy as np
from safetensors.numpy import load
folder, kind = sys.argv[1:]
if kind == "keras":
    model = keras.saving.load_model(f"{folder}/model.keras")
else:
    model = keras.models.model_from_json(open(f"{folder}/model.json").read())
    model.load_weights(f"{folder}/model.weights.h5")
data = load(open(f"{folder}/holdout", "rb").read())
found = model.predict(data["x"], verbose=0).argmax(axis=1)
print(json.dumps(float(np.mean(found == data["y"]))))
"""


@pytest.fixture(scope="module")
def customer(platform):
    return platform.person("customer@example.org", "customer", rich(1))


def finish(platform, customer, ticket, seconds=600):
    *_, last = platform.follow(customer, ticket, seconds)
    return last


@pytest.fixture(scope="module")
def settled(platform, customer):
    platform.workers(4)
    ticket = platform.order(customer, "cells.csv", samples.breast_cancer_csv(), seed=4)
    return finish(platform, customer, ticket)


def artifacts(customer, ticket, folder: Path) -> Path:
    for row in customer.call("GET", f"tickets/{ticket['id']}/artifacts"):
        (folder / row["name"]).write_bytes(httpx.get(row["url"], follow_redirects=True).raise_for_status().content)
    return folder


def test_breast_cancer_is_learnt_by_four_workers(settled):
    assert settled["status"] == "settled"
    assert settled["accuracy"] >= 0.95


def test_tensorflow_is_in_one_process_only(platform, settled):
    def loaded(name: str) -> bool:
        leader = platform.platform.children[name].process.pid
        group = [path for path in Path("/proc").glob("[0-9]*") if _group(path) == leader]
        return any("tensorflow" in (path / "maps").read_text() for path in group)

    assert [name for name in ("web", "scanner", "jobs", "compute") if loaded(name)] == ["compute"]


def _group(process: Path) -> int | None:
    """A process's group, from /proc; None if it has ended."""
    try:
        return int((process / "stat").read_text().rpartition(")")[2].split()[2])
    except OSError:
        return None


def test_the_providers_are_paid_on_the_chain_to_the_unit(platform, settled):
    chain = platform.chain
    events = chain.events(chain.deployment.block, chain.finalized().number)
    mine = [event for event in events if str(event.args.get("ticket")) == settled["id"]]
    shares = {event.args["provider"]: event.args["amount"] for event in mine if event.name == "ProviderPaid"}
    price, fee = (next(e.args[n] for e in mine if e.name == m) for m, n in (("Paid", "amount"), ("Settled", "fee")))
    assert set(shares) == {person.wallet.address for person in platform.cast}
    assert sum(shares.values()) + fee == price
    assert fee == money.fee(price)
    assert shares == money.shares(price, merit(platform, settled["id"]))[0]
    assert chain.ticket_state(UUID(settled["id"])) == "Settled"


def merit(platform: Live, ticket: str) -> dict[str, int]:
    rows = platform.query(
        """select p.wallet, sum(a.correct) from training_assignment a join training_round r on r.id = a.round_id
           join training_run u on u.id = r.run_id join providers_provider p on p.id = a.provider_id
           where u.ticket_id = %s and a.state = 'committed' group by p.wallet""",
        ticket,
    )
    return {wallet: int(total) for wallet, total in rows}


@pytest.mark.parametrize("kind", ["keras", "json+h5"])
def test_the_model_loads_in_plain_keras_and_reaches_what_was_reported(platform, customer, settled, tmp_path, kind):
    folder = artifacts(customer, settled, tmp_path)
    [[sha256]] = platform.query("select holdout_id from training_run where ticket_id = %s", settled["id"])
    (folder / "holdout").write_bytes(platform.blob(sha256))
    done = subprocess.run([sys.executable, "-c", LOAD_BACK, folder, kind], capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == pytest.approx(settled["accuracy"], abs=1e-9)


def test_the_card_and_the_mail_say_what_happened(platform, customer, settled, tmp_path):
    folder = artifacts(customer, settled, tmp_path)
    card = (folder / "model-card.md").read_text()
    for person in platform.cast:
        assert person.wallet.address in card
    mails = [path.read_text() for path in (platform.var / "mail").glob("*.log")]
    assert sum(settled["id"] in mail and "model.keras" in mail for mail in mails) == 1


def verify(platform, *arguments: object) -> subprocess.CompletedProcess[str]:
    """As a customer does, with nothing of the platform's but the worker's package: in an empty folder."""
    command = [sys.executable, "-m", "dmlworker", "verify", *map(str, arguments), "--rpc", platform.rpc_url]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


def test_the_customer_checks_the_receipt_without_trusting_the_platform(platform, customer, settled, tmp_path):
    files = {row["name"]: row["url"] for row in customer.call("GET", f"tickets/{settled['id']}/artifacts")}
    folder, link = artifacts(customer, settled, tmp_path), files["receipt.json"]
    (tmp_path / "mine.csv").write_bytes(samples.breast_cancer_csv())
    mine = ["--data", folder / "mine.csv", "--escrow", platform.deployment.escrow]
    good = verify(platform, link, "--model", folder / "model.keras", *mine)
    assert good.returncode == 0, good.stdout + good.stderr
    states = [line.split()[0] for line in good.stdout.splitlines()[1:-1]]
    assert set(states) == {"ok"} and len(states) == 8 + settled["rounds"], good.stdout

    receipt = json.loads((folder / "receipt.json").read_text())
    receipt["rounds"][0]["updates"][0]["correct"] -= 1
    (folder / "receipt.json").write_text(json.dumps(receipt, sort_keys=True, separators=(",", ":")))
    bad = verify(platform, folder / "receipt.json", "--files", link, "--no-replay")
    assert bad.returncode == 1
    failed = [line.split()[1] for line in bad.stdout.splitlines() if line.startswith("FAILED")]
    assert failed == ["payouts:", "chain:"], bad.stdout


def test_the_job_processes_are_killed_while_they_work_and_the_ticket_settles_all_the_same(platform, customer):
    platform.workers(4)
    ticket = platform.order(customer, "cells.csv", samples.breast_cancer_csv(), rounds=6)
    killed = False
    for now in platform.follow(customer, ticket, 600):
        if not killed and len(now["rounds_done"]) >= 2:
            for name in ("jobs", "compute"):
                platform.platform.children[name].signal(signal.SIGKILL)
            killed = True
    assert killed
    assert now["status"] == "settled"
    sent = platform.query("""select count(*) from ledger_chaintx where key = %s""", f"settle:{ticket['id']}")
    assert sent == [(1,)]


def test_a_worker_is_killed_and_its_shard_goes_to_another(platform, customer):
    workers = platform.workers(5)
    ticket = platform.order(customer, "cells.csv", samples.breast_cancer_csv(), rounds=4, epochs=20)
    killed = ""
    for now in platform.follow(customer, ticket, 600):
        if not killed and len(now["rounds_done"]) >= 2:
            [[killed]] = platform.query(
                """select p.user_name from training_assignment a join providers_provider p on p.id = a.provider_id
                   join training_round r on r.id = a.round_id join training_run u on u.id = r.run_id
                   where u.ticket_id = %s limit 1""",
                ticket["id"],
            )
            platform.platform.children[f"worker-{killed}"].signal(signal.SIGKILL)
    assert now["status"] == "settled"
    assert killed in {person.email.split("@")[0] for person in workers}
    person = next(person for person in workers if person.email.startswith(killed))
    platform.cast.remove(person)


def test_cheats_are_found_banned_and_pay_the_honest_and_the_customer_gets_all_back(platform, customer):
    """Two of four, as in the source: one sends noise, one turns its update round."""
    from eth_account import Account

    for name, child in platform.platform.children.items():
        if name.startswith("worker-"):
            child.end()
    honest = [platform.provider(f"honest-{n}", Account.create()) for n in range(2)]
    cheats = [platform.provider(f"cheat-{mode}", Account.create(), mode) for mode in ("garbage", "signflip")]
    platform._fund(customer, 1)
    before = platform.chain.token_balance(customer.wallet.address)
    ticket = platform.order(customer, "cells.csv", samples.breast_cancer_csv())
    last = finish(platform, customer, ticket)
    platform.wait_for_bans(cheats)
    assert last["status"] == "refunded"
    assert platform.chain.token_balance(customer.wallet.address) == before
    for person in cheats:
        assert platform.chain.provider_standing(person.wallet.address).name == "Banned"
    deposit = platform.chain.deposit_gwei()
    assert [platform.chain.coin_credit(person.wallet.address) for person in honest] == [deposit, deposit]
    assert {person.http.get("provider").json()["standing"] for person in honest} == {"active"}
    mails = [path.read_text() for path in (platform.var / "mail").glob("*.log")]
    assert any(ticket["id"] in mail and "mishandled" in mail for mail in mails)


def test_a_training_goes_on_without_a_cheat_if_the_customer_wants_it(platform, customer):
    """One of four does nothing and makes up a trace of it. It is banned, its shard is trained by others, and the model is delivered."""
    from eth_account import Account

    cheat = platform.provider("cheat-freeride", Account.create(), "freeride")
    [platform.provider(f"helper-{n}", Account.create()) for n in range(2)]
    platform._fund(customer, 1)
    ticket = platform.order(customer, "cells.csv", samples.breast_cancer_csv(), on_cheat="continue", seed=5)
    last = finish(platform, customer, ticket)
    platform.wait_for_bans([cheat])
    assert (last["status"], last["accuracy"] >= 0.95) == ("settled", True)
    paid = platform.query('select distinct credit from ledger_transfer where "case" = %s', ticket["id"])
    assert (f"provider:{cheat.wallet.address}",) not in {tuple(row) for row in paid}
    assert any(event["kind"] == "back" for event in last["events"])
    [[void]] = platform.query("select count(*) from training_round where voided is not null")
    assert void >= 1


def test_a_file_that_cannot_be_trained_on_gets_the_whole_payment_back(platform, customer):
    platform._fund(customer, 1)
    before = platform.chain.token_balance(customer.wallet.address)
    ticket = platform.order(customer, "words.csv", b"a,target\n" + b"1,x\n" * 80)
    last = finish(platform, customer, ticket, 300)
    assert last["status"] == "refunded"
    assert "cannot be trained on" in last["outcome"]
    assert platform.chain.token_balance(customer.wallet.address) == before
