"""A bad client that hops between nodes and resumes, and the judge of what each of them is given.

On each visit it has one of some manners (`_MANNERS`): it reads slowly or not at all, talks nonsense, leaves without a
word.

What is looked at, message by message:

* the bytes of a position are the same for everybody, at every node, for ever (`altered`);
* of a topic nothing comes twice or out of order (`double`);
* its chain (`prev_seq`) goes on over every reconnect, unless the client was told: by `recovered: false`, `lagged`, or
  another epoch (`hole`);
* at the end everybody has the newest message of each topic that it takes (`never came`).
"""

from __future__ import annotations

import json
import math
import random
import socket
import struct
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

import msgspec
import trio
import trio_websocket
from wsproto.utilities import LocalProtocolError

_AWAY_S: Final = 1.0
_LONG_AWAY_S: Final = 20.0
_IS_LONG: Final = 0.05
"""How long it stays away between two visits, and how often that is long."""

_MANNERS: Final = {"polite": 4, "slow": 2, "deaf": 1, "babbling": 2, "rude": 2}
"""How it behaves on a visit, and how often."""

_PAUSES: Final = 0.02
_PAUSE_S: Final = (0.5, 5.0)
"""How often a slow one stops reading after a message, and for how long."""

_NONSENSE: Final = (
    "garbage",
    "[]",
    '{"type":"nope"}',
    '{"type":"subscribe","channels":["no such channel"]}',
    '{"type":"subscribe","channels":["bitcoinprice"],"since":{"epoch":"","seq":-1}}',
    b"\xff",
)
_BETWEEN_S: Final = (0.2, 3.0)

_RESET: Final = struct.pack("ii", 1, 0)
"""SO_LINGER, so that a socket is closed by a reset (socket(7))."""

_ENDINGS: Final = (
    *(OSError, trio.TooSlowError, trio_websocket.HandshakeError, trio_websocket.ConnectionClosed),
    LocalProtocolError,  # trio-websocket answers a ping that comes while it closes
)
"""How a visit may end; what was lost by it shows in what the client has."""

CHANNELS: Final = (
    "bitcoinprice",
    "ethprice",
    "binance_prices",
    "binance_24hr",
    "okx_trades",
    "okx_quotes",
    "okx_candles",
)


class Judge:
    """Knows what was sent at each position, and what is wrong."""

    def __init__(self) -> None:
        self.known: dict[tuple[str, int], int] = {}
        self.newest: dict[tuple[str, str, str], int] = {}
        self.offences: list[str] = []
        self.counts: Counter[str] = Counter()

    def saw(self, who: int, epoch: str, seq: int, topic: tuple[str, str], raw: bytes) -> None:
        """A client was given this."""
        digest = hash(raw)
        if self.known.setdefault((epoch, seq), digest) != digest:
            self.offend(who, "altered", f"seq {seq} of {topic} is another one than somebody else was given")
        key = (epoch, *topic)
        self.newest[key] = max(self.newest.get(key, 0), seq)

    def offend(self, who: int, kind: str, what: str) -> None:
        """Something is wrong."""
        self.counts[f"OFFENCE {kind}"] += 1
        self.offences.append(f"client {who}: {kind}: {what}")


class HoppingClient:
    """One client, all of its sessions."""

    def __init__(self, number: int, seed: int, judge: Judge, ports: Callable[[], list[int]]) -> None:
        self.number = number
        self.last: dict[tuple[str, str], int] = {}
        self.epoch, self.position = "", 0
        self._dice = random.Random(f"{seed}/{number}")
        self._judge = judge
        self._ports = ports
        self._channels = tuple(self._dice.sample(CHANNELS, self._dice.randint(1, len(CHANNELS))))
        self._path: list[str] = []
        self._resting = trio.Event()
        self._manner = "polite"
        self._stay = trio.CancelScope()

    async def run(self) -> None:
        """Come and go until cancelled."""
        while True:
            ports = self._ports()
            if ports:
                try:
                    async with trio.open_nursery() as nursery:
                        await self._visit(nursery, self._dice.choice(ports))
                except* _ENDINGS:
                    pass
            is_long = self._dice.random() < _IS_LONG
            with trio.move_on_after(self._dice.uniform(0, _LONG_AWAY_S if is_long else _AWAY_S)):
                if not self._resting.is_set():
                    await self._resting.wait()
                await trio.sleep(_AWAY_S / 2)

    async def _visit(self, nursery: trio.Nursery, port: int) -> None:
        self._manner = self._dice.choices(list(_MANNERS), list(_MANNERS.values()))[0]
        self._judge.counts[f"visits {self._manner}"] += 1
        with trio.fail_after(6):
            stream = await trio.open_tcp_stream("127.0.0.1", port)
            connection = await trio_websocket.wrap_client_stream(nursery, stream, f"127.0.0.1:{port}", "/ws")
        try:
            stay_s = self._dice.expovariate(1 / 12)
            with trio.move_on_after(math.inf if self._resting.is_set() else stay_s) as self._stay:
                async with trio.open_nursery() as talking:
                    if self._manner == "babbling":
                        talking.start_soon(self._babble, connection)
                    await self._listen(connection, port)
        finally:
            if self._manner == "rude":
                stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                await trio.aclose_forcefully(stream)
            with trio.move_on_after(0.5, shield=True):
                await connection.aclose()
            # Whatever became of that: trio-websocket's reader may wait for somebody to take a message.
            nursery.cancel_scope.cancel()

    async def _babble(self, connection: trio_websocket.WebSocketConnection) -> None:
        """Say what nobody understands, until the connection ends or the client rests."""
        while not self._resting.is_set():
            await trio.sleep(self._dice.uniform(*_BETWEEN_S))
            await connection.send_message(self._dice.choice(_NONSENSE))

    async def _listen(self, connection: trio_websocket.WebSocketConnection, port: int) -> None:
        with trio.fail_after(6):
            await connection.get_message()
        command: dict[str, Any] = {"type": "subscribe", "channels": list(self._channels), "id": 1}
        if self.epoch:
            command["since"] = {"epoch": self.epoch, "seq": self.position}
        await connection.send_message(json.dumps(command))
        self._judge.counts["sessions"] += 1
        if self._manner == "deaf":
            await self._resting.wait()
        while True:
            if self._manner == "slow" and self._dice.random() < _PAUSES and not self._resting.is_set():
                await trio.sleep(self._dice.uniform(*_PAUSE_S))
            with trio.fail_after(30):
                raw = await connection.get_message()
            self._take(raw.encode() if isinstance(raw, str) else raw, port)

    def _take(self, raw: bytes, port: int) -> None:
        message = msgspec.json.decode(raw)
        match message["type"]:
            case "subscribed":
                self._subscribed(message, port)
            case "lagged":
                self._judge.counts["lagged"] += 1
                for topic in [topic for topic in self.last if topic[0] in message.get("by_channel", {topic[0]: 0})]:
                    del self.last[topic]
            case "status":
                self._judge.counts[f"status {message['state']}"] += 1
            case "goodbye":
                self._judge.counts["goodbye"] += 1
            case "error" if self._manner != "babbling":
                self._judge.offend(self.number, "error", str(message))
            case _ if "connector_id" in message:
                self._data(message, raw)
            case _:
                pass

    def _subscribed(self, message: dict[str, Any], port: int) -> None:
        recovered = message.get("recovered")
        self._path.append(f"{port} since {self.position}: {recovered} {message.get('reason', '')} at {message['seq']}")
        if recovered is None or message["epoch"] != self.epoch:
            self.last = {}
        else:
            lost = {channel for channel, whole in recovered.items() if not whole}
            self._judge.counts["recovered"] += len(recovered) - len(lost)
            self._judge.counts["not recovered"] += len(lost)
            if lost:
                self._judge.counts[f"why: {_kind(message.get('reason', ''))}"] += 1
            self.last = {topic: seq for topic, seq in self.last.items() if topic[0] not in lost}
        self.epoch = message["epoch"]
        # Whoever begins anew at a node that is behind has its positions from there.
        self.position = message["seq"] if recovered is None else self.position
        if recovered is not None and not all(recovered.values()):
            self.position = min(self.position, message["seq"])

    def _data(self, message: dict[str, Any], raw: bytes) -> None:
        topic, seq = (message["connector_id"], message.get("instrument", "")), message["seq"]
        self._judge.saw(self.number, self.epoch, seq, topic, raw)
        self._judge.counts["messages"] += 1
        last = self.last.get(topic)
        if last is not None:
            if seq <= last:
                self._judge.offend(self.number, "double", f"{topic} seq {seq} after {last}; {self._path[-3:]}")
            elif message["prev_seq"] != last:
                told = f"{topic} seq {seq} follows {message['prev_seq']}, the client had {last}; {self._path[-3:]}"
                self._judge.offend(self.number, "hole", told)
        self.last[topic] = seq
        self.position = max(self.position, seq)

    def rest(self) -> None:
        """Hop no more: stay at the node where it is, or that it comes to next."""
        self._resting.set()
        self._stay.deadline = math.inf

    def settle(self) -> None:
        """It rests, and nothing more is sent: it must have the newest of what it takes."""
        for (epoch, channel, instrument), newest in self._judge.newest.items():
            had = self.last.get((channel, instrument))
            if epoch != self.epoch or channel not in self._channels or had is None:
                continue
            self._judge.counts["newest had"] += had == newest
            if had < newest:
                told = f"{channel} {instrument}: {newest}, it has {had}; {self._manner}, {self._path[-3:]}"
                self._judge.offend(self.number, "never came", told)


def _kind(reason: str) -> str:
    """A reason without its numbers."""
    return "".join("N" if c.isdigit() else c for c in reason)[:90].replace("NN", "N")
