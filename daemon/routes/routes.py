"""The plain HTTP routes, which need no websocket.

Each route is one function from a request to a response, over read-only views of the daemon (the Protocols below). None
of them waits for anything, so a response describes one moment: a snapshot names exactly the position on the tape at
which it was taken. Only a history is made step by step, and may have to be waited for (`Later`).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping
from typing import Final, Protocol, TypeAlias

import msgspec
from msgspec import UNSET, Raw

from connectors.base import State
from daemon.front.forwarded import HEADERS as FORWARDED
from daemon.front.http import Later, Refused, Request, Response
from daemon.front.request import JSON
from daemon.health.board import TopicState, topic_statuses
from daemon.host.clock import WallClock
from daemon.routes.asyncapi import Description
from daemon.routes.gaps import gap_list
from daemon.routes.history import Histories
from daemon.routes.page import FILES, Page
from daemon.routes.query import LONGEST_SHOWN
from daemon.tape.ledger import Ledger
from protocol.answers import ChannelList, ChannelReport, ClusterReport, Health, Readiness, Snapshot, TestRequest
from protocol.channels import Catalogue, Channel
from protocol.codes import ErrorCode
from protocol.grant import ANYONE
from protocol.messages import Control, ServerInfo, TestResponse, encode
from protocol.session import ALL


class TapeView(Protocol):
    """The tape's newest messages and its position."""

    @property
    def epoch(self) -> str:
        """The tape's identity."""
        ...

    @property
    def head(self) -> int:
        """`seq` of the newest entry."""
        ...

    def payloads(self, channel: str, instrument: str = ALL) -> list[bytes]:
        """The newest message of each topic of the channel, as JSON; with `instrument`, of that topic only."""
        ...


class ChannelState(Protocol):
    """The state of one channel."""

    @property
    def state(self) -> State:
        """The state, as clients see it."""
        ...

    @property
    def since_ms(self) -> int:
        """When it went into that state, ms since 1970."""
        ...

    @property
    def reason(self) -> str:
        """Why; "" if there is nothing to say."""
        ...

    @property
    def retry_in_s(self) -> float | None:
        """When the next attempt follows, if one is planned."""
        ...

    @property
    def last_event_ms(self) -> int | None:
        """When its last message came, ms since 1970; None before the first."""
        ...

    @property
    def stale_after_s(self) -> float | None:
        """How long it may currently be silent; None if that is not known yet."""
        ...

    @property
    def topics(self) -> Mapping[str, TopicState]:
        """The instruments that do not do as well as the channel."""
        ...


class BoardView(Protocol):
    """The states of all channels."""

    def states(self) -> Mapping[str, ChannelState]:
        """By the channel's name."""
        ...


_Route: TypeAlias = Callable[[Request], Response | Later]

_SNAPSHOT: Final = "/snapshot/"
_HISTORY: Final = "/history/"
_ASKED_BY_BALANCERS: Final = ("*", "/", "/healthz")
"""By `OPTIONS`, whether the daemon is well: that is what HAProxy sends unless it is told otherwise."""
_test_request: Final = msgspec.json.Decoder(TestRequest)


class PlainRoutes:
    """Finds the route of a request, and answers it; `HEAD` like `GET`, whose body is then not sent."""

    def __init__(
        self,
        *,
        server: ServerInfo,
        catalogue: Callable[[], Catalogue],
        tape: TapeView,
        clients: Callable[[], int],
        broadcast: Callable[[str], None],
        admit_test: Callable[[Request, str], None],
        board: BoardView,
        ledger: Ledger,
        accepting: Callable[[], bool],
        clock: WallClock,
        needs_token: Callable[[], bool] = lambda: False,
        unstored: Callable[[], str] = lambda: "",
        unrecorded: Callable[[], str] = lambda: "",
        not_reloaded: Callable[[], str] = lambda: "",
        cut_off: Callable[[], str] = lambda: "",
        unreached: Callable[[], str] = lambda: "",
        metrics: Callable[[Request], Response | Later] | None = None,
        cluster: Callable[[], ClusterReport | Later] | None = None,
        histories: Histories | None = None,
    ) -> None:
        """Set up.

        `clients`: the number of clients. `broadcast`: sends a `test` to each. `admit_test`: raises Refused if there are
        too many of them. `accepting`: whether clients are let in. `catalogue` is called for each request, since a
        reload replaces the catalogue.

        `needs_token`: whether the clients' routes need a token; the description of the interface says so. `unstored`:
        why the tape is not being stored although it should be, else ""; clients get everything all the same.
        `unrecorded`: the same of the recording of what venues send. `not_reloaded`: what there is to say of a reload
        that failed, else "". `cut_off`: why nobody tells this process how the channels are, else "". `unreached`: that
        no exchange can be reached, and why, else "". `metrics` answers `GET /metrics`, `cluster` makes what `GET
        /cluster` answers, and `histories` what is below `/history/`; without one of them there is no such route.
        """
        self._server = server
        self._catalogue = catalogue
        self._tape = tape
        self._clients = clients
        self._broadcast = broadcast
        self._admit_test = admit_test
        self._board = board
        self._ledger = ledger
        self._accepting = accepting
        self._clock = clock
        self._description = Description(server)
        self._needs_token = needs_token
        self._unstored, self._unrecorded = unstored, unrecorded
        self._not_reloaded, self._unreached, self._cut_off = not_reloaded, unreached, cut_off
        self._histories = histories
        self._cluster_report = cluster
        page = Page()
        self._routes: dict[str, dict[str, _Route]] = {
            **{path: {"GET": page.answer} for path in FILES},
            "/healthz": {"GET": self._health},
            "/readyz": {"GET": self._readiness},
            "/channels": {"GET": self._channels},
            "/gaps": {"GET": self._gaps},
            "/asyncapi.json": {"GET": self._asyncapi},
            "/ws/test": {"POST": self._test},
            **({} if metrics is None else {"/metrics": {"GET": metrics}}),
            **({} if cluster is None else {"/cluster": {"GET": self._cluster}}),
        }

    @property
    def paths(self) -> frozenset[str]:
        """All paths except those below `/snapshot/` and `/history/`."""
        return frozenset(self._routes)

    async def answer(self, request: Request) -> Response | Later:
        """The response, or what has to be waited for first. No checkpoint.

        Raises:
            Refused: 404 for an unknown path, 405 for a method that the path does not have, and errors of the routes.
        """
        methods = self._methods_of(request.path)
        if request.method == "OPTIONS" and request.path in _ASKED_BY_BALANCERS:
            return Response(204, b"", content_type="", headers=(("Allow", "GET, HEAD, OPTIONS"),))
        if methods is None:
            seen = f"nothing is at {request.path[:LONGEST_SHOWN]!r}; GET / lists what there is"
            raise Refused(404, ErrorCode.NOT_FOUND, seen)
        route = methods.get("GET" if request.method == "HEAD" else request.method)
        if route is None:
            allowed = ", ".join([*methods, *(["HEAD"] if "GET" in methods else [])])
            seen = f"{request.method[:20]} {request.path[:LONGEST_SHOWN]}; allowed: {allowed}"
            raise Refused(405, ErrorCode.METHOD_NOT_ALLOWED, seen, (("Allow", allowed),))
        return route(request)

    def _methods_of(self, path: str) -> Mapping[str, _Route] | None:
        if path.startswith(_SNAPSHOT):
            return {"GET": self._snapshot}
        if path.startswith(_HISTORY) and self._histories is not None:
            return {"GET": self._history}
        return self._routes.get(path)

    def _health(self, request: Request) -> Response:
        return _ok(
            Health(
                timestamp=self._clock.timestamp(),
                status="ok",
                server=self._server,
                epoch=self._tape.epoch,
                seq=self._tape.head,
            )
        )

    def _readiness(self, request: Request) -> Response:
        delivered = any(state.last_event_ms is not None for state in self._board.states().values())
        reason = ""
        if not self._accepting():
            reason = "stopping: no client is let in"
        elif why := self._cut_off():
            reason = why
        elif not delivered:
            unreached = self._unreached()
            reason = "no connector has delivered yet" + (unreached and f": {unreached}")
        ready = not reason
        if ready and (trouble := self._unstored()):
            reason = f"clients are served, and what is sent is not stored: the tape's file {trouble}"
        elif ready and (trouble := self._unrecorded()):
            reason = f"clients are served, and what the venues send is not recorded: the folder {trouble}"
        elif ready:
            reason = self._unreached() or self._not_reloaded()
        reports = self._reports()
        stale = {report.name: report.reason for report in reports if report.state == "stale"}
        body = Readiness(
            timestamp=self._clock.timestamp(), ready=ready, reason=reason, stale=stale or UNSET, channels=reports
        )
        return Response(200 if ready else 503, encode(body))

    def _channels(self, request: Request) -> Response:
        return _ok(
            ChannelList(timestamp=self._clock.timestamp(), channels=self._reports()),
        )

    def _gaps(self, request: Request) -> Response:
        return _ok(gap_list(request, self._ledger, self._catalogue(), self._clock))

    def _asyncapi(self, request: Request) -> Response:
        return self._description.answer(request, self._catalogue(), tokens=self._needs_token())

    def _snapshot(self, request: Request) -> Response:
        channel = self._named(request, request.path.removeprefix(_SNAPSHOT))
        instrument = _instrument(request, channel)
        return _ok(
            Snapshot(
                timestamp=self._clock.timestamp(),
                channel=channel.name,
                instrument=UNSET if instrument == ALL else instrument,
                epoch=self._tape.epoch,
                seq=self._tape.head,
                messages=[Raw(payload) for payload in self._tape.payloads(channel.name, instrument)],
            )
        )

    def _history(self, request: Request) -> Later:
        channel = self._named(request, request.path.removeprefix(_HISTORY))
        histories = self._histories
        if histories is None:
            raise AssertionError("without histories there is no such route")
        return histories.answer(request, channel, _instrument(request, channel))

    def _named(self, request: Request, name: str) -> Channel:
        """The channel of that name. Raises: Refused, if there is none, or the token does not cover it."""
        catalogue = self._catalogue().granted(request.grant)
        if name in catalogue.withheld:
            raise Refused(403, ErrorCode.FORBIDDEN, f"the token does not cover {name}")
        channel = catalogue.get(name)
        if channel is None:
            nearest = catalogue.nearest(name[:LONGEST_SHOWN])
            hint = f"nearest: {', '.join(nearest)}" if nearest else "GET /channels lists what there is"
            seen = f"no channel {name[:LONGEST_SHOWN]!r}; {hint}"
            raise Refused(404, ErrorCode.UNKNOWN_CHANNEL, seen)
        return channel

    def _cluster(self, request: Request) -> Response | Later:
        _check_insider(request, "GET /cluster")
        if self._cluster_report is None:
            raise AssertionError("without a report there is no such route")
        report = self._cluster_report()
        return _ok(report) if isinstance(report, ClusterReport) else report

    def _test(self, request: Request) -> Response:
        _check_insider(request, "POST /ws/test")
        if request.grant != ANYONE and not request.grant.test:
            without = f"token {request.grant.name} may not send test messages; `test = true` in its table lets it"
            raise Refused(403, ErrorCode.FORBIDDEN, without)
        # A page's "simple" requests, which need no permission, have other types: Fetch standard, section 2.2.2.
        kinds = [value.partition(";")[0].strip().lower() for value in request.values("content-type")]
        if kinds != [JSON]:
            seen = ", ".join(kinds)[:LONGEST_SHOWN] or "none"
            raise Refused(415, ErrorCode.BAD_REQUEST, f"Content-Type: {seen}; {JSON} is needed", (("Accept", JSON),))
        try:
            test = _test_request.decode(request.body)
        except msgspec.ValidationError as error:
            raise Refused(400, ErrorCode.INVALID_FIELD, str(error)) from error
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            raise Refused(400, ErrorCode.MALFORMED, f"the body is not JSON: {error}") from error
        self._admit_test(request, test.message)
        self._broadcast(test.message)
        return _ok(
            TestResponse(
                timestamp=self._clock.timestamp(),
                message="Broadcast to all connected clients",
                clients=self._clients(),
            )
        )

    def _reports(self) -> tuple[ChannelReport, ...]:
        """Every channel of the catalogue that has a state, in the catalogue's order."""
        states = self._board.states()
        return tuple(
            self._report(channel, states[channel.name]) for channel in self._catalogue() if channel.name in states
        )

    def _report(self, channel: Channel, state: ChannelState) -> ChannelReport:
        age_s = None
        if state.last_event_ms is not None:
            # The wall clock may have been set back in between; a message from the future has no age.
            age_s = max(0, self._clock.now_ms() - state.last_event_ms) / 1000
        return ChannelReport(
            name=channel.name,
            source=channel.exchange,
            kind=channel.kind.name,
            type=channel.kind.tag,
            view=channel.kind.view,
            instruments=channel.instruments,
            cadence_s=channel.cadence_s,
            stale_after_s=state.stale_after_s,
            state=state.state,
            since=self._clock.iso(state.since_ms),
            reason=state.reason,
            retry_in_s=state.retry_in_s,
            age_s=age_s,
            topics=topic_statuses(state.topics, self._clock),
        )


def _check_insider(request: Request, what: str) -> None:
    """Raises: Refused, 403, where it comes from another machine and brings no token."""
    # Behind a proxy on this machine every peer is loopback: a forwarded request came from elsewhere, unless a trusted
    # proxy says otherwise.
    forwarded = not request.vouched and any(request.values(name) for name in FORWARDED)
    local = not forwarded and ipaddress.ip_address(request.peer).is_loopback
    if request.grant == ANYONE and not local:
        remote = f"{what} is for clients on the daemon's own machine, and for those with a token"
        raise Refused(403, ErrorCode.FORBIDDEN, remote)


def _ok(body: Control) -> Response:
    return Response(200, encode(body))


def _instrument(request: Request, channel: Channel) -> str:
    """The requested instrument, or `ALL`. Raises: Refused, if the channel has no such instrument."""
    asked = [value for name, value in request.query if name == "instrument"]
    if not asked:
        return ALL
    if len(asked) > 1:
        raise Refused(400, ErrorCode.INVALID_FIELD, f"{len(asked)} instruments; name one, or none for all")
    [instrument] = asked
    if instrument not in channel.instruments:
        of = ", ".join(channel.instruments[:20]) or "none, it is about a whole market"
        seen = f"no instrument {instrument[:LONGEST_SHOWN]!r} in {channel.name}; it has: {of}"
        raise Refused(404, ErrorCode.UNKNOWN_INSTRUMENT, seen)
    return instrument
