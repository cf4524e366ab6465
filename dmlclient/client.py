"""The two faces of the client: `DML` blocks, `AsyncDML` is awaited. What they do is written once, in `requests`."""

import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from decimal import Decimal
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, TypeVar, cast

import httpx

from dmlclient import config
from dmlclient.flow import Done, Flow, async_steps, steps
from dmlclient.progress import Progress
from dmlclient.records import Event, File, Happened, Result, Round, Terms, Ticket
from dmlclient.requests import Id, Platform, logged_in
from dmlclient.wallet import Keystore

_Made = TypeVar("_Made")
Price = Decimal | str | int | float
"""DML."""
Told = Callable[[Event], None]
SECONDS = 60.0
LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})


class _Face:
    """What both have. timeout: seconds without a sign of life in which a request is given up. progress: a bar on the terminal, where
    there is one."""

    def __init__(self, url: str, key: str, *, timeout: float = SECONDS, progress: bool = True) -> None:
        self._platform, self._progress = Platform(url, key, timeout), progress
        if self._platform.url.scheme == "http" and self._platform.url.host not in LOCAL:
            warnings.warn("http:// sends your key and the data unprotected. Use https://.", stacklevel=3)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self._platform.url)!r})"

    @property
    def url(self) -> str:
        return str(self._platform.url)

    def link(self, ticket: Id) -> str:
        """The ticket's page, where a browser's wallet pays it."""
        return self._platform.link(ticket)

    def _shown(self, ticket: Ticket | None = None) -> Told:
        if not self._progress:
            return lambda event: None
        shown = Progress()
        if ticket:
            shown.of(ticket)
        return shown


class DML(_Face):
    """A platform, in the name of whoever the key belongs to. A key is made on the account page, or by `dml login`."""

    def __init__(self, url: str, key: str, *, timeout: float = SECONDS, progress: bool = True) -> None:
        super().__init__(url, key, timeout=timeout, progress=progress)
        self._http = httpx.Client(follow_redirects=True)  # to the object store, which does not get to see the key

    @classmethod
    def configured(cls, **options: Any) -> "DML":
        """With what `dml login` has kept, or DML_URL and DML_KEY. Raises DataError if there is neither."""
        found = config.load()
        return cls(found.url, found.key, **options)

    @staticmethod
    def login(url: str, email: str, password: str, name: str = "dml-client", *, timeout: float = SECONDS) -> str:
        """A new key of this name."""
        with httpx.Client() as http:
            return _run(logged_in(url, email, password, name, timeout), http)

    def __enter__(self) -> "DML":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def __deepcopy__(self, memo: Any) -> "DML":
        """The same connection: scikit-learn copies what its estimators are given."""
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("A client holds a key, and is not pickled.")

    def _run(self, flow: Flow[_Made], tell: Told | None = None) -> _Made:
        return _run(flow, self._http, tell or self._shown())

    def train(
        self,
        data: Any,
        *,
        wallet: Keystore | None = None,
        payer: str = "",
        max_price: Price | None = None,
        ticket: Id | None = None,
        tell: Told | None = None,
        **options: Any,
    ) -> "Job":
        """Order, pay, upload; returns when the data is there. data: a path, a DataFrame, or arrays (x, y). options: the training's, by
        name, as the API has them (target, rounds, …). Without a wallet the page is named on which `payer` pays, and waited for. ticket:
        go on with one that was begun."""
        made = self._platform.ordered(data, ticket, payer, wallet, max_price, options)
        return Job(self, self._run(made, tell))

    def check(self, data: Any, target: str = "") -> dict[str, Any]:
        """What training would find in the data: kind, samples, columns, classes, warnings. Nothing is kept or charged."""
        return self._run(self._platform.check(data, target))

    def quote(self, data: Any, payer: str, **options: Any) -> Ticket:
        """A ticket with its price. Free; it runs out if nobody pays."""
        return self._run(self._platform.quote(data, payer, options), lambda event: None)

    def pay(
        self, ticket: Id, wallet: Keystore | None = None, *, max_price: Price | None = None, tell: Told | None = None
    ) -> Ticket:
        """Sign and send the payment, or without a wallet have it paid on the ticket's page; returns when it is final. max_price: DML."""
        return self._run(self._platform.pay(ticket, wallet, max_price), tell)

    def upload(self, ticket: Id, data: Any, *, tell: Told | None = None) -> Ticket:
        """Send what was paid for; after a broken connection it goes on where it broke."""
        return self._run(self._platform.upload(ticket, data), tell)

    def follow(self, ticket: Id) -> Iterator[Happened | Round]:
        """The lines of the timeline and the rounds, until the ticket has ended."""
        for event in steps(self._platform.follow(ticket), self._http):
            if not isinstance(event, Done):
                yield cast(Happened | Round, event)

    def wait(self, ticket: Id, *, tell: Told | None = None) -> Ticket:
        """The ticket as it has ended: settled, refunded or expired."""
        return self._run(self._platform.follow(ticket), tell or self._shown(self.ticket(ticket)))

    def result(self, ticket: Id, folder: Path | str | None = None, *, tell: Told | None = None) -> Result:
        """Wait, then download. Raises Refunded or Expired if there is no model."""
        return self._run(self._platform.result(ticket, folder), tell or self._shown(self.ticket(ticket)))

    def download(self, ticket: Id, folder: Path | str | None = None, *, tell: Told | None = None) -> Result:
        """The files, each verified by its SHA-256, in `folder` (dml-XXXXXXXX, by the ticket)."""
        return self._run(self._platform.download(ticket, folder), tell)

    def ticket(self, ticket: Id) -> Ticket:
        return self._run(self._platform.ticket(ticket))

    def tickets(self, limit: int = 100, offset: int = 0) -> list[Ticket]:
        """Newest first; their timelines are left out."""
        return self._run(self._platform.tickets(limit, offset))

    def rounds(self, ticket: Id) -> list[Round]:
        return self._run(self._platform.rounds(ticket))

    def files(self, ticket: Id) -> list[File]:
        """With fresh links."""
        return self._run(self._platform.files(ticket))

    def receipt(self, ticket: Id) -> bytes:
        """receipt.json, for `dmlworker verify`."""
        return self._run(self._platform.receipt(ticket), lambda event: None)

    def cancel(self, ticket: Id) -> Ticket:
        """Before training starts; what was paid goes back whole."""
        return self._run(self._platform.cancel(ticket))

    def terms(self) -> Terms:
        """The chain and contracts that the platform named first."""
        return self._run(self._platform.terms())


class Job:
    """A ticket whose data is there. It goes on whether anybody waits or not; `DML.result(id)` takes it up again."""

    def __init__(self, client: DML, ticket: Ticket) -> None:
        self._client, self.ticket = client, ticket

    def __repr__(self) -> str:
        return f"Job({self.id})"

    @property
    def id(self) -> str:
        return self.ticket.id

    def follow(self) -> Iterator[Happened | Round]:
        return self._client.follow(self.ticket)

    def result(self, folder: Path | str | None = None, *, tell: Told | None = None) -> Result:
        """Wait, then download. Raises Refunded if there is no model."""
        return self._client.result(self.ticket, folder, tell=tell or self._client._shown(self.ticket))

    def cancel(self) -> Ticket:
        return self._client.cancel(self.ticket)


class AsyncDML(_Face):
    """As `DML`, awaited."""

    def __init__(self, url: str, key: str, *, timeout: float = SECONDS, progress: bool = True) -> None:
        super().__init__(url, key, timeout=timeout, progress=progress)
        self._http = httpx.AsyncClient(follow_redirects=True)

    async def __aenter__(self) -> "AsyncDML":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await self._http.aclose()

    async def _run(self, flow: Flow[_Made], tell: Told | None = None) -> _Made:
        told = tell or self._shown()
        async for event in async_steps(flow, self._http):
            if isinstance(event, Done):
                return event.value
            told(event)
        raise AssertionError

    async def train(
        self,
        data: Any,
        *,
        wallet: Keystore | None = None,
        payer: str = "",
        max_price: Price | None = None,
        ticket: Id | None = None,
        tell: Told | None = None,
        **options: Any,
    ) -> "AsyncJob":
        made = self._platform.ordered(data, ticket, payer, wallet, max_price, options)
        return AsyncJob(self, await self._run(made, tell))

    async def check(self, data: Any, target: str = "") -> dict[str, Any]:
        return await self._run(self._platform.check(data, target))

    async def quote(self, data: Any, payer: str, **options: Any) -> Ticket:
        return await self._run(self._platform.quote(data, payer, options), lambda event: None)

    async def pay(
        self, ticket: Id, wallet: Keystore | None = None, *, max_price: Price | None = None, tell: Told | None = None
    ) -> Ticket:
        return await self._run(self._platform.pay(ticket, wallet, max_price), tell)

    async def upload(self, ticket: Id, data: Any, *, tell: Told | None = None) -> Ticket:
        return await self._run(self._platform.upload(ticket, data), tell)

    async def follow(self, ticket: Id) -> AsyncIterator[Happened | Round]:
        async for event in async_steps(self._platform.follow(ticket), self._http):
            if not isinstance(event, Done):
                yield cast(Happened | Round, event)

    async def wait(self, ticket: Id, *, tell: Told | None = None) -> Ticket:
        return await self._run(self._platform.follow(ticket), tell or self._shown(await self.ticket(ticket)))

    async def result(self, ticket: Id, folder: Path | str | None = None, *, tell: Told | None = None) -> Result:
        return await self._run(self._platform.result(ticket, folder), tell or self._shown(await self.ticket(ticket)))

    async def download(self, ticket: Id, folder: Path | str | None = None, *, tell: Told | None = None) -> Result:
        return await self._run(self._platform.download(ticket, folder), tell)

    async def ticket(self, ticket: Id) -> Ticket:
        return await self._run(self._platform.ticket(ticket))

    async def tickets(self, limit: int = 100, offset: int = 0) -> list[Ticket]:
        return await self._run(self._platform.tickets(limit, offset))

    async def rounds(self, ticket: Id) -> list[Round]:
        return await self._run(self._platform.rounds(ticket))

    async def files(self, ticket: Id) -> list[File]:
        return await self._run(self._platform.files(ticket))

    async def receipt(self, ticket: Id) -> bytes:
        return await self._run(self._platform.receipt(ticket), lambda event: None)

    async def cancel(self, ticket: Id) -> Ticket:
        return await self._run(self._platform.cancel(ticket))

    async def terms(self) -> Terms:
        return await self._run(self._platform.terms())


class AsyncJob:
    """As `Job`, awaited."""

    def __init__(self, client: AsyncDML, ticket: Ticket) -> None:
        self._client, self.ticket = client, ticket

    def __repr__(self) -> str:
        return f"AsyncJob({self.id})"

    @property
    def id(self) -> str:
        return self.ticket.id

    def follow(self) -> AsyncIterator[Happened | Round]:
        return self._client.follow(self.ticket)

    async def result(self, folder: Path | str | None = None, *, tell: Told | None = None) -> Result:
        return await self._client.result(self.ticket, folder, tell=tell or self._client._shown(self.ticket))

    async def cancel(self) -> Ticket:
        return await self._client.cancel(self.ticket)


def _run(flow: Flow[_Made], http: httpx.Client, tell: Told = lambda event: None) -> _Made:
    for event in steps(flow, http):
        if isinstance(event, Done):
            return event.value
        tell(event)
    raise AssertionError
