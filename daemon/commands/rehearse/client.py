"""The clients of a rehearsal: ordinary websocket clients that write down what they are told; and the order's way."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec
import trio
from trio_websocket import ConnectionClosed, open_websocket_url

from connectors.base import State
from connectors.simulator.venues.market import OKX, Market, unpadded
from daemon.commands.rehearse.records import Data, Entry, Standstill, Told, Topic
from protocol.kinds import VIEWS, View

PUSHES: Final = 8_192
"""How many pushes of each instrument can be told apart: those of over twenty minutes."""

_HTTP_S: Final = 10.0

_NAP_S: Final = 0.05

_STANDSTILL_S: Final = 0.2
"""A nap that is so much too long is a standstill."""
_LOOK_S: Final = 0.2


class _Push(msgspec.Struct):
    """What tells one push of the simulated OKX from another."""

    last: str = ""
    lastSz: str = ""
    bidPx: str = ""
    bidSz: str = ""
    askPx: str = ""
    askSz: str = ""
    mono: int | None = None


class _Message(msgspec.Struct):
    type: str
    connector_id: str = ""
    channel: str = ""
    instrument: str = ""
    seq: int = 0
    prev_seq: int | None = None
    data: msgspec.Raw = msgspec.Raw(b"{}")
    state: State = "connecting"
    reason: str | None = None
    retry_in_s: float | None = None


_message: Final = msgspec.json.Decoder(_Message)
_push: Final = msgspec.json.Decoder(_Push)


class Pushes:
    """The simulated OKX's tickers by number: its market is the same for the same seed."""

    def __init__(self, seed: int) -> None:
        market = Market(seed)
        self._numbers: dict[tuple[str, ...], list[int]] = {}
        for listing in OKX.values():
            prices, sizes = listing.price_digits, listing.size_digits
            if listing.base not in ("BTC", "ETH"):
                continue
            for number in range(PUSHES):
                quote = market.quote(listing, number)
                key = (
                    f"{listing.base}/{listing.quote}",
                    unpadded(quote.last, prices),
                    unpadded(quote.last_size, sizes),
                    unpadded(quote.bid, prices),
                    unpadded(quote.bid_size, sizes),
                    unpadded(quote.ask, prices),
                    unpadded(quote.ask_size, sizes),
                )
                self._numbers.setdefault(key, []).append(number)

    def number(self, instrument: str, push: _Push, after: int) -> int | None:
        """Which one it is; where two are alike, the one that is nearer to the successor of `after`."""
        key = (instrument, push.last, push.lastSz, push.bidPx, push.bidSz, push.askPx, push.askSz)
        return min(self._numbers.get(key, []), key=lambda number: abs(number - after - 1), default=None)


class Notebook:
    """Everything that the clients of one daemon were told.

    Attributes:
        entries: Since `turn_over`.
        last: Of each topic, the newest message ever.
        states: Of each channel, the newest.
        standstills: When this process did not get to run, since `turn_over`.
        failure: Why a client's connection ended; "" while it has not.
    """

    def __init__(self, pushes: Pushes) -> None:
        self.entries: list[Entry] = []
        self.last: dict[Topic, Data] = {}
        self.states: dict[str, Told] = {}
        self.standstills: list[Standstill] = []
        self.failure = ""
        self._pushes = pushes
        self._changed = trio.Event()

    def turn_over(self) -> Mapping[Topic, Data]:
        """Begin a new page. Returns the last message of each topic on the pages before."""
        self.entries, self.standstills = [], []
        return dict(self.last)

    async def changed(self) -> None:
        """Wait for the next entry."""
        await self._changed.wait()

    def note(self, text: str | bytes) -> None:
        """One message from the daemon."""
        message = _message.decode(text)
        now_s = time.monotonic()
        if message.type == "status":
            name = message.channel
            told = Told(now_s, time.time() * 1000, name, message.state, message.reason or "", message.retry_in_s)
            self.states[name] = told
            self.entries.append(told)
        elif message.prev_seq is not None:
            self._note_data(message, now_s)
        self._stir()

    def fail(self, reason: str) -> None:
        """A client's connection has ended."""
        self.failure = self.failure or reason
        self._stir()

    def _note_data(self, message: _Message, now_s: float) -> None:
        number = stamp = None
        topic = (message.connector_id, message.instrument)
        before = self.last.get(topic)
        if VIEWS.get(message.type) is View.PRICE:
            push = _push.decode(message.data)
            stamp = push.mono
            after = -1 if before is None or before.number is None else before.number
            number = self._pushes.number(message.instrument, push, after)
        data = Data(now_s, *topic, message.seq, message.prev_seq or 0, number, stamp)
        self.last[topic] = data
        self.entries.append(data)

    def _stir(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


async def watch_ourselves(book: Notebook) -> None:
    """Note whenever this process does not get to run, on a machine that is too busy for it, until cancelled."""
    while True:
        began_s = time.monotonic()
        await trio.sleep(_NAP_S)
        if (now_s := time.monotonic()) - began_s > _NAP_S + _STANDSTILL_S:
            book.standstills.append(Standstill(began_s, now_s))


async def listen(
    url: str, channels: Sequence[str], book: Notebook, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """One client: subscribe, and note what comes until the connection ends; started once it is subscribed."""
    async with open_websocket_url(url) as websocket:
        order = {"type": "subscribe", "channels": channels, "id": 1}
        await websocket.send_message(msgspec.json.encode(order).decode())
        task_status.started()
        try:
            while True:
                book.note(await websocket.get_message())
        except ConnectionClosed as closed:
            book.fail(f"a client's connection ended: {closed.reason}")


async def order(port: int, table: object) -> None:
    """`POST /control` to the simulator.

    Raises:
        RuntimeError: It refuses.
        OSError: It is not there.
        trio.TooSlowError: It does not answer.
    """
    body = msgspec.json.encode(table)
    head = f"POST /control HTTP/1.1\r\nHost: simulator\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    answer = await _ask(port, head.encode() + body)
    if not answer.startswith(b"HTTP/1.1 200 "):
        raise RuntimeError(f"the simulator refuses {table}: {answer.decode(errors='replace')}")


class _Readiness(msgspec.Struct):
    reason: str = ""


async def readiness(port: int) -> str:
    """What is wrong, according to `GET /readyz`; "" if nothing is.

    Raises:
        OSError: the daemon is not there.
        trio.TooSlowError: it does not answer.
        msgspec.DecodeError: it answers something else.
    """
    answer = await _ask(port, b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    return msgspec.json.decode(answer.partition(b"\r\n\r\n")[2], type=_Readiness).reason


class _Gap(msgspec.Struct):
    cause: str
    count: int = 0


class _Gaps(msgspec.Struct):
    gaps: list[_Gap]


async def gap_causes(port: int) -> list[str]:
    """The causes of the gaps in the daemon's ledger. Raises: as `readiness`."""
    return [gap.cause for gap in await _gaps(port)]


async def incidents(port: int) -> Counter[str]:
    """How many incidents of each cause are in the daemon's ledger. Raises: as `readiness`."""
    found: Counter[str] = Counter()
    for gap in await _gaps(port):
        found[gap.cause] += gap.count
    return found


async def _gaps(port: int) -> list[_Gap]:
    answer = await _ask(port, b"GET /gaps?limit=1000 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    return msgspec.json.decode(answer.partition(b"\r\n\r\n")[2], type=_Gaps).gaps


async def wait_until(book: Notebook, is_so: Callable[[], bool], given_up: Callable[[], bool], most_s: float) -> bool:
    """Wait until the condition holds, up to a limit and while there is hope. Returns whether it holds."""
    with trio.move_on_after(most_s):
        while not is_so() and not given_up():
            with trio.move_on_after(_LOOK_S):
                await book.changed()
    return is_so()


async def _ask(port: int, request: bytes) -> bytes:
    """The whole answer to a request that closes the connection. Raises: OSError, trio.TooSlowError."""
    answer = b""
    with trio.fail_after(_HTTP_S):
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            try:
                await stream.send_all(request)
                async for chunk in stream:
                    answer += chunk
            except trio.BrokenResourceError as error:
                raise OSError(str(error)) from error
    return answer
