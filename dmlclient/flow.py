"""One implementation for callers that block and for callers that await.

What the client does is written as generators ("flows"): each yields what is to be done outside (send this, wait so long, tell that) and
is given the answer, or the exception. Who drives a flow decides how it is done: `steps` blocks, `async_steps` awaits.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import httpx

from dmlclient.records import Event

_Made = TypeVar("_Made")


@dataclass(frozen=True)
class Send:
    """Send a request. sink: is given the body of a good answer piece by piece, else the answer holds it."""

    request: httpx.Request
    sink: Callable[[bytes], None] | None = None


@dataclass(frozen=True)
class Sleep:
    seconds: float


@dataclass(frozen=True)
class Tell:
    event: Event


Effect = Send | Sleep | Tell
Flow = Generator[Effect, Any, _Made]


@dataclass(frozen=True)
class Done(Generic[_Made]):
    """The end of a flow, and what came out."""

    value: _Made


class _Resumed(Generic[_Made]):
    """A flow between two steps: the outcome of the last one goes in, the next one comes out."""

    def __init__(self, flow: Flow[_Made]) -> None:
        self._flow = flow
        self._answer: httpx.Response | None = None
        self._error: Exception | None = None

    def next(self) -> Effect | Done[_Made]:
        answer, error, self._answer, self._error = self._answer, self._error, None, None
        try:
            return self._flow.throw(error) if error else self._flow.send(answer)
        except StopIteration as end:
            return Done(end.value)

    def answered(self, answer: httpx.Response) -> None:
        self._answer = answer

    def failed(self, error: Exception) -> None:
        self._error = error


def steps(flow: Flow[_Made], http: httpx.Client) -> Iterator[Event | Done[_Made]]:
    """What a flow tells, and at last its end."""
    resumed = _Resumed(flow)
    while True:
        match resumed.next():
            case Send() as send:
                try:
                    resumed.answered(_sent(http, send))
                except Exception as error:
                    resumed.failed(error)
            case Sleep(seconds):
                time.sleep(seconds)
            case Tell(event):
                yield event
            case Done() as end:
                yield end
                return


async def async_steps(flow: Flow[_Made], http: httpx.AsyncClient) -> AsyncIterator[Event | Done[_Made]]:
    """As `steps`."""
    resumed = _Resumed(flow)
    while True:
        match resumed.next():
            case Send() as send:
                try:
                    resumed.answered(await _sent_async(http, send))
                except Exception as error:
                    resumed.failed(error)
            case Sleep(seconds):
                await asyncio.sleep(seconds)
            case Tell(event):
                yield event
            case Done() as end:
                yield end
                return


def _sent(http: httpx.Client, send: Send) -> httpx.Response:
    response = http.send(send.request, stream=True)
    try:
        if send.sink is None or response.is_error:
            response.read()
        else:
            for piece in response.iter_bytes():
                send.sink(piece)
    finally:
        response.close()
    return response


async def _sent_async(http: httpx.AsyncClient, send: Send) -> httpx.Response:
    response = await http.send(send.request, stream=True)
    try:
        if send.sink is None or response.is_error:
            await response.aread()
        else:
            async for piece in response.aiter_bytes():
                send.sink(piece)
    finally:
        await response.aclose()
    return response
