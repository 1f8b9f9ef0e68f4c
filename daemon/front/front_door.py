"""The one port: accepts connections, keeps their number within limits, and sends each request where it belongs.

What comes is one of four things: a websocket handshake (`daemon.front.handshake` judges it, and `upgrade` serves what
it lets in), a `GET /events` (`events` judges and serves it), a plain request (`routes` answers it), or none of them (an
error object, and the connection ends).

Listeners and connections have different lives: `stop_accepting` ends the former at once, while the latter finish what
they have begun. A connection that fails, by whatever exception, is logged and ends alone: `_barrier` sees to that.
"""

from __future__ import annotations

import logging
import ssl
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

import msgspec
import trio

from connectors.metric import Samples
from daemon.front import addresses, event_request, forwarded, handshake, origins, paths, proxy_protocol
from daemon.front.accepting import serve_connections, serve_one
from daemon.front.address_counts import Place
from daemon.front.admission import Admission, unavailable
from daemon.front.arrivals import EventClient, Transport, Upgrade
from daemon.front.event_request import EventRequest
from daemon.front.http import Conversation, Later, Refused, Request, Response
from daemon.front.openings import explained
from daemon.front.tls import TlsStream
from daemon.host.clock import WallClock
from daemon.host.turns import Turns
from protocol.codes import ErrorCode

_SHARE_S: Final = 0.005
"""How long all plain requests may be answered in one turn of the event loop, together."""

_WIRE_S: Final = 0.0002
"""What a request costs beside its answer: to read it, and to write that."""

_LEAVE: Final = (429, 503)
"""Who gets one of these is to come back later: what it has sent behind its request is not looked at."""

_log: Final = logging.getLogger(__name__)


class FrontDoorStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """What goes on now (`*_open`), and what has happened since the start."""

    connections_open: int
    clients_open: int
    accepted_count: int
    requests_count: int
    upgrades_count: int
    event_streams_count: int
    refused_count: int
    broken_count: int
    failed_count: int


class Events(Protocol):
    """Whoever serves event streams."""

    def judge(self, request: Request) -> EventRequest:
        """What the client asks for. Raises: Refused, where it cannot have it."""
        ...

    async def serve(self, client: EventClient) -> None:
        """Serve one client until it ends."""
        ...


class _Stream(msgspec.Struct, frozen=True):
    """An event stream that is let in: its answer's head, and what it asked for."""

    head: bytes
    request: EventRequest


class _Admitted(msgspec.Struct, frozen=True):
    """A client that is let in, and its place."""

    what: handshake.Handshake | _Stream
    place: Place


class Routes(Protocol):
    """Whoever answers plain requests."""

    async def answer(self, request: Request) -> Response | Later:
        """The response, or what has to be waited for first. Raises: Refused; anything else is a bug: a 500."""
        ...


class FrontDoor:
    """Listeners, limits, and the way to `routes`, `upgrade` or `events`."""

    def __init__(
        self,
        *,
        admission: Admission,
        tls: ssl.SSLContext | None,
        routes: Routes,
        upgrade: Callable[[Upgrade], Awaitable[None]],
        clock: WallClock,
        events: Events | None = None,
    ) -> None:
        """Set up; nothing listens before `run`.

        Args:
            admission: who may come in, and how many.
            tls: speak TLS, and only that; None for plain HTTP.
            routes: answers plain requests.
            upgrade: serves one websocket client until it ends.
            clock: for stamps.
            events: serves event streams; without it there are none.
        """
        self.admission = admission
        self.tls = tls
        self._routes = routes
        self._upgrade = upgrade
        self._clock = clock
        self._events = events
        self._listening = trio.CancelScope()
        self._conversations: set[Conversation] = set()
        self._counts: Counter[str] = Counter()
        self.refusals: Counter[ErrorCode] = Counter()
        """What was refused since the start, and why."""
        self._left = trio.Event()
        self._turns = Turns(_SHARE_S)
        self._shares = False
        self._connections: trio.Nursery | None = None

    @property
    def accepting(self) -> bool:
        """Whether new clients may come: until `stop_accepting`."""
        return self.admission.accepting

    def stop_accepting(self) -> None:
        """Close the listeners. Requests that have begun are answered; who pauses between two is closed; no upgrades."""
        self.admission.accepting = False
        self._listening.cancel(reason="the front door closes")
        for conversation in self._conversations:
            conversation.close_soon()

    async def wait_answered(self) -> None:
        """Wait until no connection is left but those of clients; to be called after `stop_accepting`."""
        while self.admission.connections.here > self.admission.clients.here:
            self._left = trio.Event()
            await self._left.wait()

    def statistics(self) -> FrontDoorStatistics:
        """Counts of now and since the start."""
        return FrontDoorStatistics(
            connections_open=self.admission.connections.here,
            clients_open=self.admission.clients.here,
            **{
                f"{name}_count": self._counts[name]
                for name in ("accepted", "requests", "upgrades", "event_streams", "refused", "broken", "failed")
            },
        )

    async def run(
        self,
        listeners: list[trio.SocketListener],
        *,
        task_status: trio.TaskStatus[list[trio.SocketListener]] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve until cancelled, or until the last connection has ended after `stop_accepting`.

        It owns the listeners from here on. If cancelled, every connection is closed at once, whatever it was doing.

        Raises:
            OSError: a listener failed for good. Running out of file descriptors is no such failure.
        """
        async with trio.open_nursery() as own:
            await own.start(self._turns.run)
            self._shares = True
            async with trio.open_nursery() as connections:
                self._connections = connections
                with self._listening:
                    await serve_connections(self._barrier, listeners, connections, task_status=task_status)
            own.cancel_scope.cancel(reason="no connection is left")

    def let_in(self, stream: trio.SocketStream) -> None:
        """Serve a connection that was accepted elsewhere, as those that come to the listeners; to be called in `run`.

        Raises:
            RuntimeError: it does not run, or has ended.
        """
        if self._connections is None:
            raise RuntimeError("the front door does not run")
        self._connections.start_soon(serve_one, self._barrier, stream)

    async def _barrier(self, stream: trio.SocketStream) -> None:
        """Serve one connection, and let nothing out of here that would end the others."""
        peer = "a peer that is gone"
        try:
            peer = _peer_of(stream)
            self._counts["accepted"] += 1
            with self.admission.connection(peer):
                await self._serve(stream, peer)
        # The peer went, or stopped taking what it asked for: that is everyday life.
        except* (OSError, trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError) as gone:
            self._counts["broken"] += 1
            _log.debug("connection from %s broke: %r", peer, gone.exceptions[0])
        except* Exception as failed:
            self._counts["failed"] += 1
            _log.error("connection from %s failed", peer, exc_info=failed)
        finally:
            self._left.set()

    async def _serve(self, socket_stream: trio.SocketStream, peer: str) -> None:
        """One connection: TLS, if it is spoken here, then HTTP."""
        limits = self.admission.limits
        deadline = trio.current_time() + limits.handshake_s
        refused = self.admission.refusal(peer, tls=self.tls is not None)
        if refused is not None and (self.tls is not None or not self.admission.may_explain(peer)):
            # An answer would cost a TLS handshake, or a task: what there is too little of.
            self._turn_away(peer, refused.code, refused.note or str(refused))
            return
        if self.admission.takes_headers_of(peer):
            with trio.fail_at(deadline):
                peer = await proxy_protocol.take_off(socket_stream) or peer
        stream: Transport = socket_stream
        if self.tls is not None:
            stream = await self._secured(socket_stream, self.tls, peer, deadline)
        http = Conversation(
            stream,
            limits,
            self._clock,
            peer=peer,
            local=_address(socket_stream.socket.getsockname()),
            secure=self.tls is not None,
            head_deadline=deadline,
        )
        if refused is not None:
            await self._refuse(http, refused)
            await http.close()
            return
        client = await self.converse(stream, http)
        if client is None:
            return
        del http  # a client stays for hours: HTTP's buffers and states go now
        try:
            if isinstance(client, Upgrade):
                self._counts["upgrades"] += 1
                await self._upgrade(client)
            elif self._events is not None:
                self._counts["event_streams"] += 1
                await self._events.serve(client)
        finally:
            client.place.leave()

    async def _secured(self, stream: trio.SocketStream, tls: ssl.SSLContext, peer: str, deadline: float) -> TlsStream:
        """The connection, with its TLS handshake done. Raises: as `TlsStream.do_handshake`, and trio.TooSlowError."""
        secure = TlsStream(stream, tls)
        try:
            with trio.fail_at(deadline):
                await secure.do_handshake()
        except trio.BrokenResourceError:
            if strange := explained(secure.opening, secure=True):
                self._turn_away(peer, ErrorCode.BAD_REQUEST, strange)
            raise
        return secure

    def _turn_away(self, peer: str, code: ErrorCode, why: str) -> None:
        """Count and log a connection that gets no answer."""
        self._counts["refused"] += 1
        self.refusals[code] += 1
        _log.info("%s closed without a word: %s", peer, why, extra={"event": "refusal", "peer": peer})

    async def converse(self, stream: Transport, http: Conversation) -> Upgrade | EventClient | None:
        """Answer one request after the other, until the connection ends or a client is let in.

        Returns:
            That client, whose place is taken, and with no checkpoint between that and the return; None where the
            connection has ended, and is closed.

        Raises:
            trio.BrokenResourceError, trio.TooSlowError: the client went, or did not take its answer.
        """
        self._conversations.add(http)
        if not self.accepting:
            http.close_soon()
        try:
            admitted = await self._answer_until_upgrade(http)
        finally:
            self._conversations.discard(http)
        if admitted is None:
            await http.close()
            return None
        what, place = admitted.what, admitted.place
        if isinstance(what, _Stream):
            return EventClient(stream=stream, head=what.head, peer=http.client, request=what.request, place=place)
        return Upgrade(
            stream=stream,
            head=what.head,
            trailing=http.trailing,
            peer=http.client,
            format=what.format,
            subprotocol=what.subprotocol,
            grant=what.grant,
            place=place,
        )

    async def _answer_until_upgrade(self, http: Conversation) -> _Admitted | None:
        """Answer requests; a client that is let in ends it, with no checkpoint after its place is taken."""
        while True:
            try:
                request = await self._receive(http)
                if request is None:
                    return None
                self._counts["requests"] += 1
                asked = forwarded.as_sent(request, self.admission.proxies)
                http.client = asked.peer
                request = paths.meant(asked, self.admission.policy.prefix)
                arrives = self._arrives(request)
                self.admission.rates.request(request, arrives=arrives)
                if not arrives:
                    await self._wait_turn()
                policy = self.admission.policy
                if (elsewhere := paths.to_the_slash(asked, request)) is not None:
                    response = elsewhere
                elif origins.is_preflight(request):
                    response = origins.preflight(request, policy.origins, policy.names)
                else:
                    request = self.admission.granted(request)
                    self.admission.rates.token(request, arrives=arrives)
                    if request.path == handshake.PATH:
                        return _Admitted(handshake.judge(request, policy.origins), self._take_place(request))
                    if request.path == event_request.PATH and self._events is not None:
                        admitted = self._judge_events(request, self._events, http)
                        if request.method == "GET":
                            return admitted
                        admitted.place.leave()
                        await http.send_head(admitted.what.head)
                        return None
                    self._check_page(request)
                    response = await self._answer(request)
            except Refused as refused:
                await self._refuse(http, refused)
            else:
                await self._send(http, response)
            if not http.next_cycle():
                return None

    async def _receive(self, http: Conversation) -> Request | None:
        """As `Conversation.receive`. What cannot be accepted costs as much as what can, and pays as much."""
        try:
            return await http.receive()
        except Refused:
            self.admission.rates.not_understood(http.client)
            raise

    def _arrives(self, request: Request) -> bool:
        """Whether it is from a client that comes, and is no plain request."""
        paths = (handshake.PATH, event_request.PATH) if self._events is not None else (handshake.PATH,)
        return request.path in paths and request.method != "OPTIONS"

    async def _wait_turn(self) -> None:
        """Wait until a plain request may be answered: all of them together have a share of the event loop's time."""
        if self._shares:
            await self._turns.wait()

    def _judge_events(self, request: Request, events: Events, http: Conversation) -> _Admitted:
        """Raises: Refused, where it is not let in."""
        event_request.check_method(request)
        listed = self.admission.policy.origins
        origins.check_reading(request, listed)
        place = self._take_place(request)
        try:
            asked = events.judge(request)
        except BaseException:
            place.leave()
            raise
        headers = (*event_request.HEADERS, *origins.sharing(http.origin, listed))
        return _Admitted(_Stream(http.endless_head(event_request.CONTENT_TYPE, headers), asked), place)

    def _check_page(self, request: Request) -> None:
        """Whether the page that a plain request comes from, if it comes from one, may send it. Raises: Refused, 403."""
        policy = self.admission.policy
        if request.method not in origins.SAFE:
            origins.check_acting(request, policy.origins, policy.names)
        elif not origins.may_read(request, policy.origins):
            # It is answered, and the page's browser keeps the answer from the page.
            seen = origins.shown(request)
            said = {"event": "unread", "peer": request.peer, "origin": seen}
            _log.info("a page of the origin %r cannot read its answer: it is not in server.origins", seen, extra=said)

    def _take_place(self, request: Request) -> Place:
        """A place for one more client. Raises: Refused, 503."""
        if not self.accepting:
            raise unavailable(ErrorCode.UNAVAILABLE, "the daemon is stopping; come back later")
        return self.admission.take_place(request.peer)

    async def _answer(self, request: Request) -> Response:
        """The routes' answer. The second barrier: a bug in there costs its client a 500 and nobody else anything.

        Who has to wait for something takes another turn behind that; the wait itself is nobody's time.
        """
        began_s = time.perf_counter()
        try:
            answer = await self._routes.answer(request)
            if isinstance(answer, Response):
                return answer
            self._turns.took(time.perf_counter() - began_s)
            try:
                await answer.wait()
                await self._wait_turn()
            finally:
                began_s = time.perf_counter()
            return answer.answer()
        except Refused:
            raise
        except Exception as failed:
            self._counts["failed"] += 1
            what = f"{request.method} {request.path[:200]!r}"
            _log.error("%s from %s failed", what, request.peer, exc_info=failed)
            raise Refused(500, ErrorCode.INTERNAL, "the daemon failed to answer; its log says why") from failed
        finally:
            self._turns.took(time.perf_counter() - began_s + _WIRE_S)

    async def _refuse(self, http: Conversation, refused: Refused) -> None:
        self._counts["refused"] += 1
        self.refusals[refused.code] += 1
        # Never what was asked for: a query may hold a token.
        said = {"event": "refusal", "peer": http.client, "status": refused.status, "code": refused.code.value}
        if refused.note:
            _log.info(
                "%s refused: %d %s: %s", http.client, refused.status, refused.code.value, refused.note, extra=said
            )
        else:
            _log.info("%s refused: %d %s", http.client, refused.status, refused.code.value, extra=said)
        await self._send(http, refused.response(self._clock.timestamp()), close=refused.status in _LEAVE)

    async def _send(self, http: Conversation, response: Response, *, close: bool = False) -> None:
        """Answer, with what lets a page read it where it may. Raises: as `Conversation.send`."""
        said = {name for name, _ in response.headers}
        sharing = origins.sharing(http.origin, self.admission.policy.origins)
        headers = (*response.headers, *(header for header in sharing if header[0] not in said))
        await http.send(msgspec.structs.replace(response, headers=headers), close=close)

    def measure(self, samples: Samples) -> None:
        """Add who came, how many there may be, and what was refused."""
        counts, policy = self.statistics(), self.admission.policy
        samples.value("tickerd_clients_max", "How many clients are let in.", policy.limits.clients)
        samples.value("tickerd_accepting", "1 while clients are let in, 0 during a stop.", self.accepting)
        samples.value("tickerd_connections", "Open connections of any kind.", counts.connections_open)
        samples.value("tickerd_connections_max", "How many there may be.", policy.connections)
        samples.count("tickerd_connections_accepted", "Connections since the start.", counts.accepted_count)
        samples.count("tickerd_connections_broken", "Connections that broke or were too slow.", counts.broken_count)
        samples.count("tickerd_requests", "HTTP requests, handshakes included.", counts.requests_count)
        failed = "Requests and connections that failed by a bug."
        samples.count("tickerd_request_failures", failed, counts.failed_count)
        refusals = {code.value: self.refusals[code] for code in ErrorCode}
        samples.counts("tickerd_refused", "Requests and connections that were refused.", "code", refusals)


def _peer_of(stream: trio.SocketStream) -> str:
    """The remote end's IP address.

    Raises:
        OSError: it has gone already.
    """
    return _address(stream.socket.getpeername())


def _address(name: tuple[str | int, ...]) -> str:
    """The IP address in a socket's name; an IPv4 one of an IPv6 listener as IPv4 (RFC 4291 section 2.5.5.2)."""
    return addresses.plain(str(name[0]))
