"""The venues, simulated: one port that speaks the wire formats of all of them.

It serves the demo, the tests and load measurements. Values come from `connectors.simulator.venues.market`, or from a
`connectors.simulator.venues.recording`; answers are made by pure functions (`connectors.simulator.venues`).
What they say passes through the faults that are on: ordered over HTTP (`POST /control`), by a scenario, or by
`Simulator.order`; see `connectors.simulator.faults.faults`.

What is sent when:

* REST answers show the market's step at the time that has passed since `run` began, by the injected
  clock.
* Streams (`connectors.simulator.venues.sockets`) show every step of the market as it is reached.
* OKX's tickers have a pace of their own, which may be far higher, for measuring load. The n-th ticker push of an
  instrument is step n of the market (times `stride`, see `Simulator`),
  counted from the instrument's first subscription in this run. A subscriber that is away misses
  pushes, as at the venue.

So two runs with one seed and rate send the same values, whatever the time of day and whenever
clients come. Only times (`closeTime`, `ts`, `updated_at` and the like) are those of the clock.
"""

from __future__ import annotations

import logging
import math
import sys
import time
from collections.abc import Callable, Container, Mapping, Sequence
from functools import partial
from itertools import count
from types import MappingProxyType
from typing import Final
from weakref import WeakKeyDictionary

import trio

from connectors.simulator.control import PATH as CONTROL_PATH
from connectors.simulator.control import PATHS as CONTROL_PATHS
from connectors.simulator.control import Control
from connectors.simulator.faults.active import FaultBoard
from connectors.simulator.faults.answers import FaultyAnswers
from connectors.simulator.faults.faults import Fault, Venue
from connectors.simulator.faults.orders import Clear, Scenario
from connectors.simulator.faults.past_candles import FaultyHistories
from connectors.simulator.http.request import VenueRequest, VenueResponse, json_response
from connectors.simulator.http.server import UpgradedStream, serve_connection
from connectors.simulator.sockets import VenueSockets
from connectors.simulator.venues.binance import PATHS as BINANCE_PATHS
from connectors.simulator.venues.binance import SimulatedBinance
from connectors.simulator.venues.binance_streams import BinanceStreams
from connectors.simulator.venues.binance_weight import WEIGHT_LIMIT, RequestWeight
from connectors.simulator.venues.bybit import PATHS as BYBIT_PATHS
from connectors.simulator.venues.bybit import SimulatedBybit
from connectors.simulator.venues.bybit_streams import BybitStreams
from connectors.simulator.venues.captures import RecordedVenue
from connectors.simulator.venues.coinbase import PATHS as COINBASE_PATHS
from connectors.simulator.venues.coinbase import SimulatedCoinbase
from connectors.simulator.venues.coinbase_streams import CoinbaseStreams
from connectors.simulator.venues.coingecko import MARKETS_PERIOD_S, SLOW_PERIOD_S, SimulatedCoinGecko
from connectors.simulator.venues.coingecko import PATHS as COINGECKO_PATHS
from connectors.simulator.venues.kraken_streams import KrakenStreams
from connectors.simulator.venues.market import LISTINGS, OKX, Market
from connectors.simulator.venues.okx import PATHS as OKX_PATHS
from connectors.simulator.venues.okx import SimulatedOkx
from connectors.simulator.venues.okx_streams import OkxSession, OkxStreams
from connectors.simulator.venues.past_candles import SimulatedHistories
from connectors.simulator.venues.recording import Recording
from connectors.simulator.venues.sockets import SocketVenue
from connectors.simulator.venues.stream import MarketStream
from connectors.simulator.venues.websocket import VenueConnection
from protocol.frames import text_frame

PASS_S = 0.001
"""Shortest time between two passes over the schedules; frames that fall due within it share a write."""
PASS_FRAMES = 500
"""Most frames of one instrument in a pass; a simulator that cannot keep up stays responsive."""

NO_SCENARIO = Scenario()

SIMULATED: Final[dict[str, dict[str, str]]] = {
    "binance": {},
    "okx": {},
    "coingecko": {"plan": "unlimited"},
    "coinbase": {},
    "kraken": {},
    "bybit": {},
}
"""The venues that are simulated, at the real ones' paths; and what a daemon can be told that has them for itself."""

STREAM_S: Final = 0.01
"""Shortest time between two looks at what streams have to say; steps of the market within it are told together."""
STREAM_MOST_S: Final = 1.0
"""Longest time between two, for heartbeats."""
RECORDED_S: Final = 0.02
"""The same where captures are played."""

SOCKET_VENUES: Final[Mapping[Venue, Callable[[MarketStream, Container[str]], SocketVenue]]] = MappingProxyType(
    {
        "binance": BinanceStreams,
        "okx": OkxStreams,
        "coinbase": CoinbaseStreams,
        "kraken": KrakenStreams,
        "bybit": BybitStreams,
    }
)
"""The venues that have websockets. Each is made of the market's stream and of its symbols that are listed just now."""

logger = logging.getLogger(__name__)


class PushSchedule:
    """When the pushes of one instrument are due: the n-th at `start + n / rate`, without drift."""

    def __init__(self, start: float, rate: float) -> None:
        self._start = start
        self._rate = rate
        self.taken = 0

    @property
    def next_due(self) -> float:
        """When the next push is due, on the clock of `start`."""
        return self._start + self.taken / self._rate

    def take(self, now: float, most: int = PASS_FRAMES) -> range:
        """The numbers of the pushes due by `now` and not yet taken, at most `most` of them."""
        # The slack keeps a push from being missed by a rounding error at exactly its time.
        due = int((now - self._start) * self._rate + 1e-6) + 1
        first = self.taken
        self.taken = max(first, min(due, first + most))
        return range(first, self.taken)


class Simulator:
    """The venues on one port.

    Args:
        seed: Decides all values.
        okx_rate: Ticker pushes a second for each instrument, over 0. OKX itself pushes at most
            ten; higher rates are for measuring load. The market makes `okx_rate * stride` steps a
            second, with the smallest stride that makes it at least one.
        stamp: Begin each pushed ticker object with `"mono"`: `time.monotonic_ns()` when it was
            made, a JSON number, for measuring latency on the same machine.
        recording: Serve this instead of the simulated market.
        clock: Epoch seconds.
        weight_limit: Binance's request weight a minute.
        markets_period_s: How long a body of CoinGecko's `/coins/markets` stays (the real one: 45 to
            60 s).
        slow_period_s: The same for `/global` and `/search/trending` (the real ones: 10 min).
        scenario: Faults by the clock, from when `run` accepts connections.

    Attributes:
        fault: If set, called for each HTTP request (the opening of a websocket too) before the
            venue and its faults; what it returns is sent instead, `None` lets the venue answer.
        mute_okx: While true, OKX sessions are pushed nothing; pings are still answered.
        okx_frames_sent: Ticker frames handed to sessions for writing.
        okx_frames_missed: Ticker frames left out because their subscriber reads too slowly.
    """

    def __init__(
        self,
        *,
        seed: int = 1,
        okx_rate: float = 5.0,
        stamp: bool = False,
        recording: Recording | None = None,
        clock: Callable[[], float] = time.time,
        weight_limit: int = WEIGHT_LIMIT,
        markets_period_s: int = MARKETS_PERIOD_S,
        slow_period_s: int = SLOW_PERIOD_S,
        scenario: Scenario = NO_SCENARIO,
    ) -> None:
        if not 0 < okx_rate < float("inf"):
            raise ValueError(f"okx_rate is {okx_rate}; it must be over 0")
        self.fault: Callable[[VenueRequest], VenueResponse | None] | None = None
        self.mute_okx = False
        self.okx_frames_sent = 0
        self.okx_frames_missed = 0
        self._okx_rate = okx_rate
        self._stride = math.ceil(1 / okx_rate)
        self._stamp = stamp
        self._recording = recording
        self._clock = clock
        self._began_s = clock()
        self._market = Market(seed)
        self._okx = SimulatedOkx(self._market, clock, self._step)
        known = None if recording is None else recording.instruments
        self._connections = 0
        self._board = FaultBoard(seed)
        self._answers = FaultyAnswers(self._board, clock)
        self._stream = MarketStream(self._market, okx_rate * self._stride)
        self._sockets: dict[Venue, VenueSockets] = {
            name: VenueSockets(name, make, self._stream, self._board, self._moment, known)
            for name, make in (SOCKET_VENUES if recording is None else _recorded(recording)).items()
        }
        self._sessions = self._sockets["okx"].connections
        self._okx_faults = self._sockets["okx"].faults
        sockets = [venue.faults for venue in self._sockets.values()]
        self._control = Control(self._board, sockets, lambda: self._connections)
        self._scenario = scenario
        self._schedules: dict[str, PushSchedule] = {}
        self._tickers: WeakKeyDictionary[VenueConnection, frozenset[str]] = WeakKeyDictionary()
        """Of which instruments OKX's connections have had tickers begun."""
        self._subscribed = trio.Event()
        binance = SimulatedBinance(self._market, clock, self._step, self._snapshot_step).answer
        coingecko = SimulatedCoinGecko(
            self._market, clock, self._elapsed_s, self._step_at, markets_period_s, slow_period_s
        ).answer
        okx = self._okx.answer
        if recording is not None:
            binance, coingecko, okx = recording.binance, recording.coingecko, recording.okx
        weight = RequestWeight(clock, weight_limit)
        weigh = partial(weight.guard, serve=binance)
        self._routes: dict[str, tuple[Venue | None, Callable[[VenueRequest], VenueResponse]]] = {
            # CoinGecko's says more, but the path is Binance's as well, and nobody reads it.
            "/api/v3/ping": (None, lambda request: json_response({})),
            **dict.fromkeys(BINANCE_PATHS, ("binance", weigh)),
            **dict.fromkeys(COINGECKO_PATHS, ("coingecko", coingecko)),
            **dict.fromkeys(OKX_PATHS, (None, okx)),
            **dict.fromkeys(COINBASE_PATHS, (None, SimulatedCoinbase(self._listed("coinbase")).answer)),
            **dict.fromkeys(BYBIT_PATHS, (None, SimulatedBybit(clock, self._listed("bybit")).answer)),
        }
        if recording is None:
            faulty = FaultyHistories(self._board)
            for path, (name, tell) in SimulatedHistories(self._stream, self._step, self._listed).routes.items():
                serve = partial(faulty.answer, name, serve=tell)
                # Of its interface all else is faulty, too, and weighed.
                self._routes[path] = (name, partial(weight.guard, serve=serve)) if name == "binance" else (None, serve)

    @property
    def is_recorded(self) -> bool:
        """Whether it serves what was recorded, with the times of then."""
        return self._recording is not None

    async def run(
        self,
        listeners: Sequence[trio.abc.Listener[trio.SocketStream]],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve until cancelled, then close the listeners; started when accepting.

        Connections are cut off on cancellation; websockets get no close frame.
        """
        self._began_s = self._clock()
        self._stream.began_ms = int(self._began_s * 1000)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._pace if self._recording is None else self._replay)
            nursery.start_soon(self._push_streams)
            await nursery.start(trio.serve_listeners, self._serve, list(listeners))
            nursery.start_soon(self._control.run, self._scenario)
            task_status.started()

    def order(self, order: Fault | Clear) -> None:
        """Switch a fault on, or faults off, as `POST /control` does. While `run` runs."""
        self._control.order(order)

    def drop_okx(self, code: int | None) -> None:
        """Close all OKX sessions with this close code, or without a close frame. Returns at once."""
        for session in self._sessions:
            session.drop(code)

    def notice_okx(self) -> None:
        """Send all OKX sessions the notice 64008: the connection will be closed, reconnect."""
        for session in self._sessions:
            session.notice()

    def answer(self, request: VenueRequest) -> VenueResponse | None:
        """The answer to any request, or `None` where it opens a websocket."""
        if request.path in CONTROL_PATHS:
            return self._control.answer(request)
        if self.fault is not None:
            response = self.fault(request)
            if response is not None:
                return response
        route = self._routes.get(request.path)
        socket = self._socket(request)
        if route is None and socket is None:
            return json_response({"error": f"no such path: {request.path}"}, 404)
        if request.method != "GET":
            refusal = json_response({"error": f"{request.method} is not allowed here"}, 405)
            return refusal.with_headers(("allow", "GET"))
        if route is not None:
            venue, serve = route
            return serve(request) if venue is None else self._answers.answer(venue, request, serve)
        if socket is not None and _opens_websocket(request):
            return self._answers.handshake(socket.faults.venue, request) or socket.refusal()
        return json_response({"error": "a websocket handshake (RFC 6455) is expected here"}, 400)

    def _listed(self, name: Venue) -> Container[str]:
        """A venue's symbols that are listed at present."""
        return self._sockets[name].faults if name in self._sockets else LISTINGS[name]

    def _socket(self, request: VenueRequest) -> VenueSockets | None:
        return next((venue for venue in self._sockets.values() if venue.venue.serves(request.path)), None)

    def _moment(self) -> tuple[int, int]:
        return self._step(), int(self._clock() * 1000)

    def _elapsed_s(self) -> float:
        return max(0.0, self._clock() - self._began_s)

    def _step_at(self, elapsed_s: float) -> int:
        return math.floor(elapsed_s * self._okx_rate * self._stride)

    def _step(self) -> int:
        return self._step_at(self._elapsed_s())

    def _snapshot_step(self) -> int:
        """The step of the books that Binance answers with."""
        return self._step_at(self._elapsed_s() - self._answers.snapshot_age_s("binance"))

    async def _serve(self, stream: trio.SocketStream) -> None:
        """The barrier of one connection: whatever goes wrong in it ends here."""
        try:
            peer = str(stream.socket.getpeername()[0])
            await serve_connection(stream, peer, self.answer, self._serve_websocket, (CONTROL_PATH,))
        except* Exception:
            logger.info("a connection to the simulator failed", exc_info=True)

    async def _serve_websocket(self, request: VenueRequest, stream: UpgradedStream) -> None:
        socket = self._socket(request)
        if socket is None:
            raise AssertionError(f"{request.path} was let in")
        await trio.sleep(self._answers.handshake_delay_s(socket.faults.venue))
        number = self._connections
        self._connections += 1
        self._control.wake()
        await socket.serve(request, stream, number, self._begin_tickers)

    async def _push_streams(self) -> None:
        """Look after each step of the market what the streams have to say."""
        steps_per_s = self._okx_rate * self._stride
        while True:
            for venue in self._sockets.values():
                venue.push_all()
            next_s = (self._step() + 1) / steps_per_s - self._elapsed_s()
            most_s = STREAM_MOST_S if self._recording is None else RECORDED_S
            await trio.sleep(min(most_s, max(STREAM_S, next_s)))

    def _begin_tickers(self, session: VenueConnection) -> None:
        """Start the pushes of OKX's tickers that are new to a connection."""
        conversation = session.conversation
        if not isinstance(conversation, OkxSession):
            return
        present = conversation.subscriptions.instruments
        new = present - self._tickers.get(session, frozenset())
        self._tickers[session] = frozenset(present)
        if new:
            self._begin(session, sorted(new))

    def _begin(self, session: VenueConnection, instruments: list[str]) -> None:
        """Start the pushes of instruments new to a session, the present ticker first as OKX does."""
        now = trio.current_time()
        for instrument in instruments:
            schedule = self._schedules.get(instrument)
            if schedule is None:
                self._schedules[instrument] = PushSchedule(now, self._okx_rate)
                continue
            if self._subscribers(instrument) == [session]:
                schedule.take(now, sys.maxsize)  # Nobody was there for them.
            if self._recording is None and schedule.taken and not self.mute_okx:
                ticker = self._ticker(instrument, schedule.taken - 1, int(self._clock() * 1000))
                self._push([session], instrument, [ticker])
        self._subscribed.set()

    def _ticker(self, instrument: str, number: int, ts_ms: int) -> bytes:
        quote = self._market.quote(OKX[instrument], number * self._stride)
        mono_ns = time.monotonic_ns() if self._stamp else None
        return self._okx.tickers[instrument].push(quote, ts_ms, mono_ns)

    def _push(self, sessions: Sequence[VenueConnection], instrument: str, tickers: list[bytes]) -> None:
        """Hand tickers to sessions: framed once for all, or with faults for each by itself."""
        if not self._board.of("okx"):
            frames = b"".join(map(text_frame, tickers))
            for session in sessions:
                self._offer(session, frames, len(tickers))
            return
        for session in sessions:
            for ticker in tickers:
                written = self._okx_faults.write(session, instrument, ticker)
                if written.torn:
                    session.tear(written.frames)
                    self.okx_frames_sent += written.tickers
                elif written.frames:
                    self._offer(session, written.frames, written.tickers)

    def _offer(self, session: VenueConnection, frames: bytes, number: int) -> None:
        if session.offer(frames):
            self.okx_frames_sent += number
        else:
            self.okx_frames_missed += number

    def _subscribers(self, instrument: str) -> list[VenueConnection]:
        return [session for session in self._sessions if instrument in _tickers(session)]

    async def _pace(self) -> None:
        """Push each instrument's tickers when due; what is due together is written together."""
        while True:
            now = trio.current_time()
            ts_ms = int(self._clock() * 1000)
            wake = float("inf")
            for instrument, schedule in self._schedules.items():
                due = schedule.take(now)
                subscribers = self._subscribers(instrument)
                if subscribers:
                    wake = min(wake, schedule.next_due)
                if due and subscribers and not self.mute_okx:
                    self._push(subscribers, instrument, [self._ticker(instrument, n, ts_ms) for n in due])
            self._subscribed = trio.Event()
            with trio.move_on_at(max(wake, now + PASS_S)):
                await self._subscribed.wait()

    async def _replay(self) -> None:
        """Push a recording's frames at their pace, again and again, from the first subscription on."""
        recording = self._recording
        if recording is None:
            return
        await self._subscribed.wait()
        start = trio.current_time()
        if not recording.frames:
            await trio.sleep_forever()
        for lap in count():
            for frame in recording.frames:
                await trio.sleep_until(start + lap * recording.loop_s + frame.offset_s)
                if not self.mute_okx:
                    self._push(self._subscribers(frame.instrument), frame.instrument, [frame.payload])


def _recorded(
    recording: Recording,
) -> Mapping[Venue, Callable[[MarketStream, Container[str]], SocketVenue]]:
    """The venues of which there is a capture, playing it."""

    def play(name: Venue, stream: MarketStream, known: Container[str]) -> SocketVenue:
        return RecordedVenue(SOCKET_VENUES[name](stream, known), recording.captures[name], stream, known)

    return {name: partial(play, name) for name in SOCKET_VENUES if name in recording.captures}


def _tickers(session: VenueConnection) -> set[str]:
    conversation = session.conversation
    return conversation.subscriptions.instruments if isinstance(conversation, OkxSession) else set()


def _opens_websocket(request: VenueRequest) -> bool:
    """Whether a handshake is complete (RFC 6455 section 4.2.1)."""
    headers = request.headers
    return (
        headers.get("upgrade", "").lower() == "websocket"
        and "upgrade" in headers.get("connection", "").lower()
        and headers.get("sec-websocket-version") == "13"
        and bool(headers.get("sec-websocket-key"))
    )
