"""The main job on real data, done as its users would do it: over the REST API, with wallets that sign for themselves.

No Django in here: it is a client of the running site.
"""

import email
import email.policy
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.message import EmailMessage
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import httpx

from contracts import devchain
from contracts.chain import Call, Chain, Key
from dmlsite.supervisor import Platform

PASSWORD = "correct-horse-42"
COINS = 10**9
"""gwei of test coins for everybody: one coin."""

LAST_MAILS = ("model is ready", "payment was returned")
"""What is in the subjects of the mails that come when a ticket is over."""


class DemoError(RuntimeError):
    """The demo did not come to its end; the text says why."""


@dataclass
class Person:
    """Somebody with an e-mail address and a wallet, who uses the API."""

    email: str
    kind: str
    wallet: Key
    http: httpx.Client
    chain: Chain

    def enter(self) -> bool:
        """Log in, after registering if this is the first time; whether it is."""
        fields = {"email": self.email, "password": PASSWORD}
        answer = self.http.post("login", json=fields)
        if new := answer.status_code != 200:
            self.call("POST", "register", json=fields | {"kind": self.kind})
            answer = self.http.post("login", json=fields)
        self.http.headers["Authorization"] = f"Token {_json(answer)['token']}"
        return new

    def call(self, method: str, path: str, **more: Any) -> Any:
        return _json(self.http.request(method, path, **more))

    def sign(self, prepared: dict[str, str]) -> str:
        """What a browser wallet does with a prepared transaction: sign, send. Returns the hash when it is mined."""
        value = int(prepared.get("value", "0x0"), 16) // 10**9
        return self.chain.send(Call(prepared["to"], prepared["data"], value), self.wallet).hash


def _json(answer: httpx.Response) -> Any:
    if answer.is_error:
        raise DemoError(f"{answer.request.method} {answer.request.url.path}: {answer.status_code} {answer.text[:500]}")
    return answer.json() if answer.content else None


class Demo:
    """A cast of people on one running platform. `say` is told what happens."""

    def __init__(self, platform: Platform, chain: Chain, treasury: Key, say: Callable[[str], None]) -> None:
        self.platform, self.chain, self.treasury, self.say = platform, chain, treasury, say

    def person(self, email: str, kind: str, wallet: Key) -> Person:
        http = httpx.Client(base_url=f"{self.platform.url}/api/v1/", timeout=120)
        person = Person(email, kind, wallet, http, self.chain)
        if person.enter() and kind == "customer":
            self._confirm(person)
        return person

    def _confirm(self, person: Person) -> None:
        """Press the button behind the link in the mail."""
        folder, links = self.platform.layout.var / "mail", list[str]()

        def arrived() -> bool:
            pages = (
                re.findall(r"http\S+/confirm/\S+", text) for text in mails(folder) if f"address {person.email}" in text
            )
            links.extend(page[0] for page in pages if page)
            return bool(links)

        wait(arrived, 180, f"the mail to {person.email}")
        with httpx.Client(timeout=120) as browser:
            token = browser.get(links[-1]).raise_for_status().cookies["csrftoken"]
            browser.post(links[-1], data={"csrfmiddlewaretoken": token})

    def provider(self, name: str, wallet: Key, cheat: str = "") -> Person:
        """A provider in standing with a worker online: joined and deposited, unless that was done before."""
        person = self.person(f"{name}@dml.example", "provider", wallet)
        standing = self._standing(person)
        if standing is None:
            self.say(f"{name} joins and locks the deposit")
            person.call("POST", "provider", json={"user_name": name})
            devchain.fund(self.platform.rpc_url, wallet.address, COINS)
            person.sign(person.call("POST", "provider/deposit", json={"wallet": wallet.address}))
        wait(lambda: self._standing(person) == "active", 180, f"{name}'s deposit to be final")
        key = person.call("POST", "provider/keys", json={"name": "demo"})["key"]
        self.platform.worker(name, key, cheat)
        return person

    def _standing(self, person: Person) -> str | None:
        answer = person.http.get("provider")
        return None if answer.status_code == 404 else _json(answer)["standing"]

    def order(self, customer: Person, name: str, data: bytes, **options: Any) -> dict[str, Any]:
        """Quote, pay with one signature, wait for finality, upload. Returns the ticket."""
        fields = {"file_name": name, "file_size": len(data), "payer": customer.wallet.address, **options}
        ticket = customer.call("POST", "quotes", json=fields)
        price = ticket["price_micro"]
        self._fund(customer, price)
        self.say(f"{customer.email} pays {ticket['price']} DML for {len(data):,} bytes")
        customer.sign(customer.call("POST", f"tickets/{ticket['id']}/payment"))
        wait(lambda: self.status(customer, ticket) == "paid", 180, "the payment to be final")
        self.say(f"{customer.email} uploads {name}")
        customer.call("POST", f"tickets/{ticket['id']}/file", files={"file": (name, data)})
        return dict(ticket)

    def _fund(self, customer: Person, price: int) -> None:
        devchain.fund(self.platform.rpc_url, customer.wallet.address, COINS)
        if self.chain.token_balance(customer.wallet.address) < price:
            self.chain.send(self.chain.transfer_call(customer.wallet.address, 100 * 10**6), self.treasury)

    def status(self, customer: Person, ticket: dict[str, Any]) -> str:
        return str(customer.call("GET", f"tickets/{ticket['id']}")["status"])

    def follow(self, customer: Person, ticket: dict[str, Any], seconds: float) -> Iterator[dict[str, Any]]:
        """The ticket as it goes, until it is settled or refunded and the chain agrees."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            now = customer.call("GET", f"tickets/{ticket['id']}")
            now["rounds_done"] = customer.call("GET", f"tickets/{ticket['id']}/rounds")
            yield now
            if now["status"] in ("settled", "refunded") and self._final(now):
                return
            time.sleep(0.5)
        raise DemoError(f"The ticket was {now['status']} after {seconds:.0f} s; see {self.platform.layout.var / 'log'}")

    def wait_for_bans(self, cheats: list[Person]) -> None:
        """Until the challenge time is over, the bans are executed, and the blocks that say so are final."""

        def banned() -> bool:
            final = self.chain.finalized().number
            return all(self.chain.provider_standing(p.wallet.address, at=final).name == "Banned" for p in cheats)

        wait(banned, 300, "the bans to be executed")

    def _final(self, ticket: dict[str, Any]) -> bool:
        """The escrow has let go of this ticket's money, and the last mail went out."""
        mailed = " ".join(event["text"] for event in ticket["events"] if event["kind"] == "mailed")
        decided = self.chain.ticket_state(UUID(ticket["id"])) in ("Settled", "Refunded")
        return decided and any(subject in mailed for subject in LAST_MAILS)


def wait(condition: Callable[[], bool], seconds: float, what: str) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise DemoError(f"Waited {seconds:.0f} s for {what}.")
        time.sleep(0.2)


def mails(folder: Path) -> list[str]:
    """The mails that went out, as text, oldest first (the embedded default writes them to disk)."""
    return [_text(path.read_bytes()) for path in sorted(folder.glob("*.log"), key=lambda path: path.stat().st_mtime)]


def _text(raw: bytes) -> str:
    message = cast(EmailMessage, email.message_from_bytes(raw, policy=email.policy.default))
    body = message.get_body(("plain",))
    return f"{message['subject']}\n\n{body.get_content() if body else ''}"
