"""The command line: what it prints, and its exit codes, as a shell sees them."""

import json
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from eth_account import Account

from contracts.devchain import free_port
from dmlclient.tests.conftest import PASSPHRASE
from dmlsite.demo import PASSWORD
from dmlworker.datasets import samples

ROOT = Path(__file__).resolve().parent.parent.parent
SMALL = b"a,b\n1,2\n"


class Shell:
    """Commands of one person, in a folder of their own."""

    def __init__(self, platform, keystore: Path, folder: Path) -> None:
        self.url, self.folder = platform.url, folder
        self.env = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ} | {
            "PYTHONPATH": str(ROOT),
            "DML_CONFIG": str(folder / "config" / "client.json"),
            "DML_PASSPHRASE": PASSPHRASE,
            "DML_RPC": platform.rpc_url,
        }
        self.wallet = ["--wallet", str(keystore)]

    def start(self, *words: str, **more) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "dmlclient", *words]
        pipes = {name: subprocess.PIPE for name in ("stdin", "stdout", "stderr")}
        return subprocess.Popen(
            command, cwd=self.folder, env=self.env, text=True, preexec_fn=_interruptible, **pipes, **more
        )

    def __call__(self, *words: str, typed: str = "", code: int = 0) -> str:
        """What it prints; the exit code has to be this."""
        running = self.start(*words)
        out, said = running.communicate(typed, timeout=300)
        assert running.returncode == code, out + said
        return out if code == 0 else out + said


def _interruptible() -> None:
    """As at a terminal, even where the tests run in the background, which ignores the signal."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture
def shell(platform, key, keystore, tmp_path):
    made = Shell(platform, keystore, tmp_path)
    made("login", platform.url, typed=f"{key}\n")
    (tmp_path / "small.csv").write_bytes(SMALL)
    return made


def test_the_key_is_kept_for_its_owner_alone_and_printed_nowhere(shell, key, platform):
    path = Path(shell.env["DML_CONFIG"])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    said = json.loads(path.read_text())
    assert (said["key"], said["terms"]["escrow"]) == (key, platform.deployment.escrow)
    assert key not in shell("login", platform.url, typed=f"{key}\n") + shell("list")


def test_an_e_mail_address_and_a_password_make_a_key(shell, platform, customer):
    shell("login", platform.url, "--email", customer.email, "--name", "shell", typed=f"{PASSWORD}\n")
    shell("list")
    [[use]] = platform.query("select distinct use from accounts_apikey where name = 'shell'")
    assert use == "client"
    assert "do not match" in shell("login", platform.url, "--email", customer.email, typed="wrong\n", code=3)


def test_a_wrong_key_is_not_kept(shell, platform, key):
    assert "not known" in shell("login", platform.url, typed="dml_wrong\n", code=3)
    assert json.loads(Path(shell.env["DML_CONFIG"]).read_text())["key"] == key


def test_one_command_trains_and_the_others_tell_of_it(shell, platform):
    platform.workers(4)
    (shell.folder / "cells.csv").write_bytes(samples.breast_cancer_csv())
    said = json.loads(
        shell("train", "cells.csv", "--target", "diagnosis", *shell.wallet, "--rounds", "3", "--out", "m", "--json")
    )
    assert (said["status"], said["rounds"], said["target"]) == ("settled", 3, "diagnosis")
    assert (shell.folder / said["files"]["model.keras"]).stat().st_size > 1000
    pk = said["id"]
    status = json.loads(shell("status", pk, "--json"))
    assert [one["number"] for one in status["rounds"]] == [1, 2, 3]
    lines = [json.loads(line) for line in shell("follow", pk, "--json").splitlines()]
    assert lines[-1]["status"] == "settled" and lines[0]["kind"] == "quoted"
    assert pk in shell("list")
    assert "model.keras" in shell("download", pk, "--out", "again")
    shell("receipt", pk, "--out", "receipt.json")
    assert (shell.folder / "receipt.json").read_text() == shell("receipt", pk)
    assert "settled" in shell("follow", pk)


def test_interrupted_it_says_how_to_go_on_and_the_ticket_does(shell, platform):
    platform.workers(4)
    (shell.folder / "cells.csv").write_bytes(samples.breast_cancer_csv())
    running = shell.start("train", "cells.csv", *shell.wallet, "--rounds", "10")

    def ticket() -> str:
        rows = platform.query("select id, status from tickets_ticket order by created desc limit 1")
        return str(rows[0][0]) if rows[0][1] == "training" else ""

    end = time.monotonic() + 120
    while not ticket() and time.monotonic() < end:
        time.sleep(0.2)
    pk = ticket()
    running.send_signal(signal.SIGINT)
    _, said = running.communicate(timeout=60)
    assert running.returncode == 130
    assert f"dml follow {pk}" in said and "Traceback" not in said
    assert "settled" in shell("follow", pk)


def test_interrupted_before_the_payment_it_is_gone_on_with(shell, customer):
    running = shell.start("train", "small.csv", "--payer", customer.wallet.address)
    assert running.stderr.readline().startswith("Please pay at http")
    running.send_signal(signal.SIGINT)
    _, said = running.communicate(timeout=60)
    assert running.returncode == 130
    again = said.partition("dml ")[2].split()
    assert again[:3] == ["train", "small.csv", "--ticket"]
    assert shell(*again, *shell.wallet, "--detach").startswith("The ticket goes on: dml follow")


def test_a_refund_has_a_code_of_its_own(shell, platform):
    platform.workers(4)
    (shell.folder / "words.csv").write_bytes(b"a,target\n" + b"1,x\n" * 80)
    assert "cannot be trained on" in shell("train", "words.csv", *shell.wallet, code=4)


def test_a_quote_is_cancelled_for_nothing(shell, customer):
    found = json.loads(shell("quote", "small.csv", "--payer", customer.wallet.address, "--json"))
    assert found["price"] == "0.01"
    assert "no receipt yet" in shell("receipt", found["id"], code=3)
    assert "the ticket is quoted" in shell("download", found["id"], code=3)
    assert "expired" in shell("cancel", found["id"])
    assert "can no longer" in shell("cancel", found["id"], code=3)


@pytest.mark.parametrize(
    ("words", "said", "code"),
    [
        (["train", "small.csv"], "Who pays?", 2),
        (["train", "none.csv", "--payer", "0x1"], "no file", 2),
        (["quote", "small.csv", "--payer", "0x1"], "wallet's address", 3),
        (["quote", "small.csv", "--payer", Account.create().address, "--round", "3"], "round: There is no such", 3),
        (["list", "--rounds", "3"], "no option --rounds", 2),
        (["quote", "small.csv", "--rounds"], "Options look like", 2),
        (["status", "12"], "no ticket's number", 2),
        (["status", "00000000-0000-4000-8000-000000000000"], "no such ticket", 3),
        (["nothing"], "invalid choice", 2),
    ],
)
def test_the_code_says_what_is_wrong(shell, words, said, code):
    running = shell.start(*words)
    out = "".join(running.communicate(timeout=60))
    assert (running.returncode, said in out) == (code, True), out


def test_a_price_above_the_limit_is_not_paid(shell):
    assert "at most 0.001" in shell("train", "small.csv", *shell.wallet, "--max-price", "0.001", code=6)


def test_errors_are_json_too(shell):
    running = shell.start("status", "12", "--json")
    assert "no ticket's number" in json.loads(running.communicate(timeout=60)[1])["error"]


def test_nobody_there_and_nobody_logged_in(shell):
    del shell.env["DML_CONFIG"]
    shell.env["XDG_CONFIG_HOME"] = str(shell.folder / "empty")
    assert "dml login" in shell("list", code=2)
    shell.env |= {"DML_URL": f"http://localhost:{free_port()}", "DML_KEY": "dml_x"}
    assert "does not answer" in shell("list", code=5)
