"""What is asked of the platform, as flows. What may be repeated is repeated, and nothing else."""

import base64
import hashlib
import io
import random
from collections.abc import Callable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, BinaryIO, TypeVar
from uuid import UUID

import httpx

from dmlclient.data import Data, data_of
from dmlclient.errors import (
    Damaged,
    DataError,
    Expired,
    NetworkError,
    PaymentError,
    Refunded,
    Unavailable,
    WrongState,
    refused,
)
from dmlclient.flow import Flow, Send, Sleep, Tell
from dmlclient.records import (
    File,
    Happened,
    Payment,
    Received,
    Result,
    Round,
    Sent,
    Terms,
    Ticket,
    micro,
)
from dmlclient.wallet import Keystore

TRIES = 6
"""About a quarter of a minute in all."""
PATIENCE = 20
"""As often as that again, while a ticket is followed: more than five minutes."""
NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
"""The platform can't have done anything: such a request may always be repeated."""
BUSY = frozenset({502, 503, 504})
PART = 4 << 20
"""Bytes of one part of an upload; the platform takes 16 MB."""
SOONEST, LATEST = 0.5, 5.0
"""Seconds between two looks at a ticket: soon when something has just happened, then less and less often."""
QUIET = 15.0
"""The latest for a ticket that trains, which takes long: looking was most of what a hundred of them cost the platform's web processes."""
RECEIPT = "receipt.json"
TUS = {"Tus-Resumable": "1.0.0"}
Id = Ticket | UUID | str
_Made = TypeVar("_Made")


def backoff(attempt: int) -> float:
    """Seconds before the next try: up to 0.5, 1, 2, 4, 8, half of it by chance. attempt: from 0."""
    return min(8.0, 0.5 * float(2**attempt)) * random.uniform(0.5, 1.0)


def _pk(ticket: Id) -> str:
    text = ticket.id if isinstance(ticket, Ticket) else str(ticket)
    try:
        return str(UUID(text))
    except ValueError:
        raise DataError(f"{text} is no ticket's number.") from None


def _address(url: str) -> httpx.URL:
    try:
        found = httpx.URL(url.rstrip("/") + "/")
    except httpx.InvalidURL:
        raise DataError(f"{url} is no address of a platform.") from None
    if found.scheme not in ("http", "https") or not found.host:
        raise DataError(f"{url} is no address of a platform: it begins with https://.")
    return found


class Platform:
    """One platform, in one person's name. timeout: seconds without a sign of life in which a request is given up."""

    def __init__(self, url: str, key: str, timeout: float) -> None:
        self.url = _address(url)
        self._key, self._timeout = key, {"timeout": httpx.Timeout(timeout).as_dict()}
        self._terms: Terms | None = None

    # --- Asking

    def _request(self, method: str, path: str, headers: Mapping[str, str] | None = None, **body: Any) -> httpx.Request:
        shown = {"Authorization": f"Bearer {self._key}", "Accept": "application/json", **(headers or {})}
        return httpx.Request(
            method, self.url.join("api/v1/").join(path), headers=shown, extensions=self._timeout, **body
        )

    def _answer(
        self, made: Callable[[], httpx.Request], again: bool, sink: Callable[[bytes], None] | None = None
    ) -> Flow[httpx.Response]:
        """A good answer. again: the request does no harm if it was heard before. Raises NetworkError, Refused."""
        for attempt in range(TRIES):
            try:
                response: httpx.Response = yield Send(made(), sink)
            except httpx.TransportError as error:
                if not again and not isinstance(error, NEVER_SENT):
                    raise self._silence(error) from error
                last: Exception = self._silence(error)
            else:
                if not response.is_error:
                    return response
                last = _refusal(response)
                if not again or response.status_code not in BUSY:
                    raise last
            if attempt + 1 < TRIES:
                yield Sleep(backoff(attempt))
        raise last

    def _silence(self, error: Exception) -> NetworkError:
        return NetworkError(f"{self.url.host} does not answer: {str(error) or type(error).__name__}")

    def _json(self, method: str, path: str, again: bool = True, **body: Any) -> Flow[Any]:
        response = yield from self._answer(lambda: self._request(method, path, **body), again)
        try:
            return response.json()
        except ValueError:
            raise NetworkError(f"{self.url} does not answer like a DML platform.") from None

    def _patiently(self, asked: Callable[[], Flow[_Made]]) -> Flow[_Made]:
        """Trainings take long: a platform that is out of order for some minutes is waited for."""
        for _ in range(PATIENCE):
            try:
                return (yield from asked())
            except (NetworkError, Unavailable) as error:
                last = error
                yield Sleep(LATEST)
        raise last

    # --- Ordering

    def terms(self) -> Flow[Terms]:
        """Asked once: what is said later can't change where payments go."""
        if self._terms is None:
            said = yield from self._json("GET", "terms")
            self._terms = Terms(said["chain_id"], said["token"], said["escrow"])
        return self._terms

    def check(self, given: Any, target: str) -> Flow[dict[str, Any]]:
        data = data_of(given)
        files = {"file": (data.name, data.read(0, data.size))}
        return dict((yield from self._json("POST", "check", data={"target": target}, files=files)))

    def quote(self, given: Any, payer: str, options: Mapping[str, Any]) -> Flow[Ticket]:
        """To repeat it does no harm: a quote that nobody pays runs out."""
        data = data_of(given)
        order = {"file_name": data.name, "file_size": data.size, "payer": payer, **options}
        ticket = Ticket.of((yield from self._json("POST", "quotes", json=order)))
        yield Tell(ticket)
        return ticket

    # --- Paying

    def pay(self, ticket: Id, wallet: Keystore | None, max_price: Decimal | str | int | float | None) -> Flow[Ticket]:
        """Until the payment is final. Without a wallet: told where it is to be paid, then waited for."""
        found = yield from self.ticket(ticket)
        if found.status != "quoted":
            return found
        tx = ""
        if wallet:
            tx = yield from self._signed(found, wallet, wallet.max_micro if max_price is None else micro(max_price))
        yield Tell(Payment(self.link(found), tx))
        return (yield from self._paid(found, wallet, tx))

    def _signed(self, ticket: Ticket, wallet: Keystore, max_micro: int) -> Flow[str]:
        terms = wallet.terms or (yield from self.terms())
        call = yield from self._json("POST", f"tickets/{ticket.id}/payment")
        wallet.check(call, ticket, terms, max_micro)
        signed = yield from wallet.signed(call)
        for attempt in range(TRIES):
            try:
                return (yield from wallet.send(signed))
            except NetworkError as error:  # nobody knows whether it was heard: the same bytes again
                last = error
            yield Sleep(backoff(attempt))
        raise NetworkError(f"{last} Whether {signed.hash} was sent is not known; it pays once at most.") from last

    def _paid(self, ticket: Ticket, wallet: Keystore | None, tx: str) -> Flow[Ticket]:
        pause = SOONEST
        while True:
            now = yield from self._patiently(lambda: self.ticket(ticket))
            if now.status != "quoted":
                return _alive(now)
            if wallet and tx and (yield from wallet.reverted(tx)):
                raise PaymentError(f"The contract refused the payment {tx}. Only gas was spent.")
            yield Sleep(pause)
            pause = _longer(pause, LATEST)

    def link(self, ticket: Id) -> str:
        """The ticket's page."""
        return str(self.url.join(f"tickets/{_pk(ticket)}/"))

    # --- Sending the data

    def upload(self, ticket: Id, given: Any) -> Flow[Ticket]:
        """In parts; after a broken connection from where it broke. Raises NetworkError if that does not help."""
        data, pk = data_of(given), _pk(ticket)
        place = yield from self._begun(pk, data)
        offset, failures = 0, 0
        while offset < data.size:
            try:
                offset, failures = (yield from self._part(place, data, offset)), 0
            except (NetworkError, WrongState):
                failures += 1
                if failures == TRIES:
                    raise
                yield Sleep(backoff(failures - 1))
                offset = yield from self._arrived(place)
            yield Tell(Sent(offset, data.size))
        return (yield from self.ticket(pk))

    def _begun(self, pk: str, data: Data) -> Flow[str]:
        name = base64.b64encode(data.name.encode()).decode()
        told = {**TUS, "Upload-Length": str(data.size), "Upload-Metadata": f"filename {name}"}
        response = yield from self._answer(lambda: self._request("POST", f"tickets/{pk}/uploads", told), again=True)
        place = self.url.join(response.headers["Location"])
        if (place.scheme, place.netloc) != (self.url.scheme, self.url.netloc):
            raise NetworkError(f"{self.url.host} sends the upload elsewhere, and the key does not go along.")
        return str(place)

    def _part(self, place: str, data: Data, offset: int) -> Flow[int]:
        """Not repeated blindly: how far it came is asked first."""
        told = {**TUS, "Upload-Offset": str(offset), "Content-Type": "application/offset+octet-stream"}
        request = self._request("PATCH", place, told, content=data.read(offset, PART))
        response = yield from self._answer(lambda: request, again=False)
        return int(response.headers["Upload-Offset"])

    def _arrived(self, place: str) -> Flow[int]:
        response = yield from self._answer(lambda: self._request("HEAD", place, TUS), again=True)
        return int(response.headers["Upload-Offset"])

    # --- Following

    def ticket(self, ticket: Id) -> Flow[Ticket]:
        return Ticket.of((yield from self._json("GET", f"tickets/{_pk(ticket)}")))

    def tickets(self, limit: int, offset: int) -> Flow[list[Ticket]]:
        said = yield from self._json("GET", "tickets", params={"limit": limit, "offset": offset})
        return [Ticket.of(one) for one in said]

    def rounds(self, ticket: Id) -> Flow[list[Round]]:
        said = yield from self._json("GET", f"tickets/{_pk(ticket)}/rounds")
        return [Round(one["number"], one["state"], one["accuracy"], one["loss"]) for one in said]

    def follow(self, ticket: Id) -> Flow[Ticket]:
        """Tells each line of the timeline, and each round when it opens and when it closes; gives the ticket when it has ended."""
        known: set[Happened | Round] = set()
        pause = SOONEST
        while True:
            now = yield from self._patiently(lambda: self.ticket(ticket))
            rounds = yield from self._patiently(lambda: self.rounds(ticket))
            news: list[Happened | Round] = [*now.events, *rounds]
            fresh = [new for new in news if new not in known]
            known.update(fresh)
            for new in fresh:
                yield Tell(new)
            if now.ended:
                return now
            yield Sleep(pause)
            pause = SOONEST if fresh else _longer(pause, QUIET)

    def cancel(self, ticket: Id) -> Flow[Ticket]:
        return Ticket.of((yield from self._json("POST", f"tickets/{_pk(ticket)}/cancel", again=False)))

    # --- The result

    def files(self, ticket: Id) -> Flow[list[File]]:
        said = yield from self._json("GET", f"tickets/{_pk(ticket)}/artifacts")
        return [File(one["name"], one["size"], one["sha256"], one["url"]) for one in said]

    def download(self, ticket: Id, folder: Path | str | None) -> Flow[Result]:
        """All files of a ticket that has a model. One that is there already, unharmed, is not fetched again. Raises Damaged."""
        now = _alive((yield from self.ticket(ticket)))
        if now.status != "settled":
            raise WrongState(409, f"There is no model yet: the ticket is {now.status}.", {})
        place = Path(f"dml-{now.id[:8]}" if folder is None else folder)
        place.mkdir(parents=True, exist_ok=True)
        found = yield from self.files(now)
        for file in found:
            yield from self._kept(file, place / _plain(file.name))
        return Result(now, {file.name: place / file.name for file in found})

    def _kept(self, file: File, path: Path) -> Flow[None]:
        if path.is_file() and _sha256(path) == file.sha256:
            return
        draft = path.with_name(f".{path.name}.part")
        try:
            with draft.open("w+b") as out:
                yield from self._fetched(file, out)
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)

    def receipt(self, ticket: Id) -> Flow[bytes]:
        """What `dmlworker verify` checks. Raises WrongState if there is none yet."""
        file = next((one for one in (yield from self.files(ticket)) if one.name == RECEIPT), None)
        if file is None:
            raise WrongState(409, "There is no receipt yet: it comes with the model.", {})
        out = io.BytesIO()
        yield from self._fetched(file, out)
        return out.getvalue()

    def _fetched(self, file: File, out: BinaryIO) -> Flow[None]:
        """By its link, which opens without the key."""
        digest, done = hashlib.sha256(), 0

        def begin() -> httpx.Request:
            nonlocal digest, done
            digest, done = hashlib.sha256(), 0
            out.seek(0)
            out.truncate()
            return httpx.Request("GET", file.url, extensions=self._timeout, headers={"Accept-Encoding": "identity"})

        def take(piece: bytes) -> None:
            nonlocal done
            done += len(piece)
            if done > file.size:
                raise Damaged(f"{file.name} is larger than {file.size:,} bytes.")
            digest.update(piece)
            out.write(piece)

        yield from self._answer(begin, again=True, sink=take)
        if digest.hexdigest() != file.sha256:
            raise Damaged(f"{file.name} has another SHA-256 than the platform says.")
        yield Tell(Received(file.name, done, file.size))

    # --- All of it

    def ordered(
        self,
        given: Any,
        ticket: Id | None,
        payer: str,
        wallet: Keystore | None,
        max_price: Decimal | str | int | float | None,
        options: Mapping[str, Any],
    ) -> Flow[Ticket]:
        """Quote, pay, upload; or what of it a ticket still lacks."""
        data = data_of(given)
        if ticket is None:
            ticket = yield from self.quote(data, payer or (wallet.address if wallet else ""), options)
        found = _alive((yield from self.pay(ticket, wallet, max_price)))
        return (yield from self.upload(found, data)) if found.status == "paid" else found

    def result(self, ticket: Id, folder: Path | str | None) -> Flow[Result]:
        _alive((yield from self.follow(ticket)))
        return (yield from self.download(ticket, folder))


def logged_in(url: str, email: str, password: str, name: str, timeout: float) -> Flow[str]:
    """A new key of this name, for a person's e-mail address and password."""
    nobody = Platform(url, "", timeout)
    path, fields = nobody.url.join("api/v1/login"), {"email": email, "password": password}
    token = (yield from nobody._answer(lambda: httpx.Request("POST", path, json=fields), again=True)).json()["token"]
    shown = {"Authorization": f"Token {token}"}
    return str((yield from nobody._json("POST", "keys", again=False, headers=shown, json={"name": name}))["key"])


def _longer(pause: float, latest: float) -> float:
    return min(latest, pause * 1.5)


def _alive(ticket: Ticket) -> Ticket:
    """Raises Refunded or Expired."""
    if ticket.status == "refunded":
        raise Refunded(ticket)
    if ticket.status == "expired":
        raise Expired(ticket)
    return ticket


def _refusal(response: httpx.Response) -> Exception:
    try:
        said = response.json()
        detail, errors = str(said["detail"]), said.get("errors") or {}
    except (ValueError, KeyError, TypeError):
        detail, errors = f"The platform answered {response.status_code}.", {}
    return refused(response.status_code, detail, errors)


def _plain(name: str) -> str:
    """A file's name that leads nowhere else. Raises Damaged."""
    if not name or name.startswith(".") or Path(name).name != name or "\\" in name:
        raise Damaged(f"{name!r} is no name of a file.")
    return name


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
