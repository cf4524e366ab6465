"""Sockets: decode, one action, reply. What a connection must not forget is in the database."""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncWebsocketConsumer
from django.conf import settings
from django.db.models import Q
from django.template.defaultfilters import pluralize

from accounts import second_factor
from dmlsite import live
from dmlsite.errors import DomainError
from dmlworker import protocol
from dmlworker.protocol import Ack, Blob, Cancel, Challenge, Lease, Offer, ProtocolError, Release, VersionMismatch
from observe import logs, traces
from providers import actions as providers
from providers.models import Provider, Standing
from tickets.models import Ticket
from training import actions, audits, heartbeats
from training.models import Assignment, Run

log = logging.getLogger(__name__)
BAD_FRAME = 4400
TOO_MANY = 4429
"""Close code: too many frames in a short time, or too many workers of one provider."""
BURST, PER_SECOND = 300, 30
"""Frames of a worker: a busy one says two a second, and all at once what waited for the connection."""
JOINING = asyncio.Semaphore(50)
"""So many at once: Redis' client refuses more than a hundred, and thousands of workers may come back together."""
State = Assignment.State
WITHDRAWN = "its time was over, or the training has ended"


class WorkerConsumer(AsyncWebsocketConsumer):
    """A provider's worker. It shows an API key, says Hello, and gets an Offer for every open lease of its provider."""

    provider: Provider | None = None
    greeted = deaf = False
    shut_out = session = ""
    patience: asyncio.TimerHandle | None = None
    left, counted = float(BURST), 0.0

    async def connect(self) -> None:
        await self.accept()  # only an accepted socket can say why it closes
        headers = dict(self.scope["headers"])
        scheme, _, key = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
        key = key if scheme == "Bearer" else ""
        secret = headers.get(protocol.ATTESTED.lower().encode(), b"").decode("latin-1")
        self.session = protocol.session_of(secret) if secret else ""
        try:
            self.provider = await database_sync_to_async(providers.worker_of)(key)
        except DomainError as error:
            await self.close(protocol.CLOSE_BAD_KEY, str(error))
        else:
            self.shown = self.provider.pk, key
            logs.note(provider=self.provider.pk)
            loop = asyncio.get_running_loop()
            self.patience = loop.call_later(
                settings.PRESENCE_SECONDS, lambda: asyncio.ensure_future(self._lose_patience())
            )

    async def _lose_patience(self) -> None:
        if not self.greeted:
            await self.close(BAD_FRAME, "hello is expected first, and soon")

    def _floods(self) -> bool:
        """Counts a frame; a bucket that is filled again as time goes by."""
        now = time.monotonic()
        self.left = min(BURST, self.left + (now - self.counted) * PER_SECOND) - 1
        self.counted = now
        return self.left < 0

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        if self.provider is None or self.deaf:
            return
        if self._floods():
            await self.close(TOO_MANY, "too many messages")
            return
        try:
            message = protocol.decode(text_data or "")
        except VersionMismatch as error:
            await self.close(protocol.CLOSE_TOO_OLD, str(error))
        except ProtocolError as error:
            await self.close(BAD_FRAME, str(error)[:120])
        else:
            await self._handle(message)

    async def _handle(self, message: protocol.Message) -> None:
        name = type(message).__name__.lower()
        handler: Callable[[Any], Any] | None = getattr(self, f"on_{name}", None)
        if handler is None or (name != "hello" and not self.greeted):
            await self.close(BAD_FRAME, f"{name} is not expected here")
            return
        try:
            with traces.message(name):
                await handler(message)
        except DomainError as error:
            log.info("%s from %s: %s", name, self.provider, error)
            if lease := getattr(message, "lease", None):
                await self._say(Cancel(lease, str(error)))

    async def on_hello(self, message: protocol.Hello) -> None:
        if not await self._may_work():
            return
        device = f"{message.device}, {message.threads} thread{pluralize(message.threads)}, {message.software}"
        await self._listen()
        try:
            await database_sync_to_async(providers.connected)(self.provider, self.channel_name, device, self.session)
        except DomainError as error:
            await self.close(TOO_MANY, str(error))
            return
        self.greeted, self.offered, self.challenged, self.done = True, set[int](), set[int](), set[int]()
        heartbeat = max(1, settings.PRESENCE_SECONDS // 3)
        await self._say(protocol.Welcome(self.provider.user_name, heartbeat))
        await self.changed({})

    async def on_heartbeat(self, message: protocol.Heartbeat) -> None:
        await self._listen()
        found = await heartbeats.heard(self.channel_name, self.shown)
        if (found.open, found.asked) != (self.offered, self.challenged) or self.done:  # a wake-up may have been lost
            await self.changed({})
        else:
            self._note(found)
            await self._may_work()

    async def on_accept(self, message: protocol.Accept) -> None:
        if not await database_sync_to_async(actions.accept)(self.provider, message.lease, self.channel_name):
            await self._say(Cancel(message.lease, "this lease is closed, or another worker of yours has it"))

    async def on_decline(self, message: protocol.Decline) -> None:
        await database_sync_to_async(actions.decline)(self.provider, message.lease, message.reason)

    async def on_progress(self, message: protocol.Progress) -> None:
        await database_sync_to_async(actions.progress)(self.provider, message.lease, message.step, message.steps)

    async def on_commit(self, message: protocol.Commit) -> None:
        try:
            await database_sync_to_async(actions.record_update)(
                self.provider, message.lease, message.sha256, message.root, message.joules, message.gpu
            )
            await self._say(Ack(message.lease, True))
        except DomainError as error:
            await self._say(Ack(message.lease, False, str(error)))

    async def on_reveal(self, message: protocol.Reveal) -> None:
        await database_sync_to_async(audits.show)(self.provider, message.lease, message.trace)

    async def changed(self, event: dict[str, Any]) -> None:
        """Woken by the channel layer: the standing or the leases of this provider changed."""
        await self._tell(await database_sync_to_async(self._news)())

    async def _tell(self, news: list[protocol.Message]) -> None:
        if await self._may_work():
            for message in news:
                await self._say(message)

    async def _may_work(self) -> bool:
        if self.shut_out:
            await self.close(protocol.CLOSE_BAD_KEY, self.shut_out)
            return False
        if self.provider.standing in (Standing.ACTIVE, Standing.EXITING):
            return True
        await self.close(protocol.CLOSE_BANNED, f"You are {self.provider.get_standing_display()}.")
        return False

    def _news(self) -> list[protocol.Message]:
        """What this worker was not told yet, in one step to the database's thread: new offers, Cancel for leases whose run
        ended or that were given to someone else, audits of its work, and what of it can be let go."""
        found = heartbeats.concerned({self.shown})[self.shown]
        self._note(found)
        return self._leases(found.open) + self._audits(found.asked) + self._let_go()

    def _note(self, found: heartbeats.Concerned) -> None:
        self.provider.standing = found.standing
        if not found.welcome:
            self.shut_out = "This key was revoked, or the account is closed."

    def _leases(self, open_: set[int]) -> list[protocol.Message]:
        new = self._new() if open_ - self.offered else []
        ended = self.offered - open_
        gone = list(Assignment.objects.filter(pk__in=ended).select_related("round", "shard")) if ended else []
        self.done |= {found.pk for found in gone if found.state == State.COMMITTED}
        self.offered = self.offered & open_ | {found.pk for found in new}
        cancelled = [Cancel(lease_of(found), WITHDRAWN) for found in gone if found.state != State.COMMITTED]
        return [offer_of(found) for found in new] + cancelled

    def _new(self) -> list[Assignment]:
        return [found for found in actions.offers(self.provider, self.channel_name) if found.pk not in self.offered]

    def _audits(self, asked: set[int]) -> list[protocol.Message]:
        found = audits.challenges(self.provider, self.channel_name) if asked - self.challenged else []
        new = [audit for audit in found if audit.assignment_id not in self.challenged]
        self.challenged = self.challenged & asked | {audit.assignment_id for audit in new}
        return [Challenge(offer_of(audit.assignment), audit.assignment.root, tuple(audit.drawn)) for audit in new]

    def _let_go(self) -> list[protocol.Message]:
        """Nothing will be asked any more of work whose round was checked, or that does not count."""
        if not self.done:
            return []
        settled = Q(round__checked__isnull=False) | ~Q(state=State.COMMITTED)
        found = Assignment.objects.filter(settled, pk__in=self.done).select_related("round", "shard")
        self.done -= {each.pk for each in found}
        return [Release(lease_of(each)) for each in found]

    async def _listen(self) -> None:
        """Join the provider's group, again and again: a Redis that died has forgotten it, and so does one in a day."""
        async with JOINING:
            await self.channel_layer.group_add(live.provider_group(self.provider.pk), self.channel_name)

    async def _say(self, message: protocol.Message) -> None:
        if not self.deaf:
            await self.send(protocol.encode(message))

    async def close(self, code: int | bool | None = None, reason: str | None = None) -> None:
        """Once: a server breaks at what is said after that. What is on its way already is not read any more."""
        if not self.deaf:
            self.deaf = True
            await super().close(code, reason)

    async def disconnect(self, code: int) -> None:
        if self.patience:
            self.patience.cancel()
        if self.greeted and self.provider:
            await self.channel_layer.group_discard(live.provider_group(self.provider.pk), self.channel_name)
            await database_sync_to_async(providers.disconnected)(self.channel_name)


def lease_of(assignment: Assignment) -> Lease:
    round_ = assignment.round
    return Lease(str(round_.run_id), round_.number, assignment.shard.number, assignment.attempt)


def offer_of(assignment: Assignment) -> Offer:
    """The frame for a lease; `assignment` comes with its round, run and blobs loaded."""
    run: Run = assignment.round.run
    spec, start, shard = (
        Blob(blob.sha256, blob.size) for blob in (run.spec, assignment.round.start, assignment.shard.blob)
    )
    hyper = actions.hyper_of(assignment)
    return Offer(lease_of(assignment), spec, start, shard, hyper, int(assignment.deadline.timestamp()))


class TicketConsumer(AsyncWebsocketConsumer):
    """A page that follows a ticket: every message means "something changed, ask again"."""

    async def connect(self) -> None:
        pk = self.scope["url_route"]["kwargs"]["pk"]
        logs.note(ticket=pk)
        self.group = live.ticket_group(pk)
        if await database_sync_to_async(self._may_follow)():
            await self.channel_layer.group_add(self.group, self.channel_name)
            await self.accept()
        else:
            await self.close()

    def _may_follow(self) -> bool:
        user = self.scope["user"]
        ticket = Ticket.objects.filter(pk=self.scope["url_route"]["kwargs"]["pk"]).first()
        if ticket is None or not user.is_authenticated:
            return False
        mine = ticket.customer_id == user.pk
        return mine or second_factor.oversees(user, self.scope["session"], "tickets.view_ticket")

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await self.close(BAD_FRAME)  # pages only listen

    async def changed(self, event: dict[str, Any]) -> None:
        await self.send("changed")

    async def disconnect(self, code: int) -> None:
        await self.channel_layer.group_discard(self.group, self.channel_name)
