"""The bodies of the plain HTTP interface, beside those in `protocol/messages.py`.

Every answer is an object with `type` and `timestamp`, as every message is; a refusal is an `error`.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal, TypeAlias

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from protocol.kinds import MESSAGES
from protocol.messages import Control, ServerInfo, State, Timestamp, TopicStatus
from protocol.payloads import SCHEMAS

Cause: TypeAlias = Literal[
    "outage",
    "stale",
    "resync",
    "restart",
    "lagged",
    "refused",
    "unreadable",
    "gap",
    "unstored",
    "unrecorded",
    "pause",
    "clock",
    "cluster",
]
"""The cause of a gap.

* `outage`: there was no link to the venue;
* `stale`: there was a link, but no data;
* `resync`: clients that resumed could not get all that they had missed, and began anew;
* `restart`: the daemon was not running, or had not stored what it had sent;
* `lagged`: clients did not keep up;
* `refused`: the sequencer refused a connector's messages;
* `unreadable`: a venue sent frames that do not match its documentation;
* `gap`: something was missing in what a venue sent of an instrument: a trade, or a change of its book;
* `unstored`: the disk could not be written to; clients missed nothing, unless an unclean stop followed meanwhile;
* `unrecorded`: what venues sent was not recorded, or is missing in a recording that is replayed;
* `pause`: the daemon itself did not run: it or its machine was stopped, suspended, or too busy;
* `clock`: the machine's clock was set: times before are by the clock as it was;
* `cluster`: another node took over, or the engine that carries the tape was away, or lost some of it.
"""

_DATA: Final = Meta(extra_json_schema={"anyOf": [{"$ref": f"{SCHEMAS}{message.__name__}"} for message in MESSAGES]})
"""Annotates a field that holds the bytes of one data message."""


class ChannelReport(msgspec.Struct, frozen=True, kw_only=True):
    """One channel and its state; `since` is ISO-8601, `age_s` the age of its last message.

    Attributes:
        kind: what the venue is asked for.
        type: the type of its data messages.
        view: what they contain: `price`; `day` (a price, and the summary of 24 hours); `book` (`bids` and `asks`);
            `trade`; `quote` (`bid` and `ask`); `best` (those of all venues); `depth` (a book's changes); `candle`;
            `market`, `top` or `trending` (figures of the whole market, or lists of coins).
        stale_after_s: the silence after which it currently becomes `stale`.
        topics: the instruments that do not do as well as the channel, by name; all others do as the channel does.
    """

    name: str
    source: str
    kind: str
    type: str
    view: str = ""
    instruments: tuple[str, ...]
    cadence_s: float | None
    stale_after_s: float | None
    state: State
    since: Timestamp
    reason: str
    retry_in_s: float | None
    age_s: float | None
    topics: dict[str, TopicStatus] = {}


class Health(Control, frozen=True, kw_only=True, tag="health"):
    """`GET /healthz`: the process is alive, and its event loop runs."""

    status: str
    server: ServerInfo
    epoch: str
    seq: int


class Readiness(Control, frozen=True, kw_only=True, tag="readiness"):
    """`GET /readyz`: whether clients are let in and get data, and if not, why; or what else is wrong.

    `stale` names the channels whose data is stale, each with the reason.
    """

    ready: bool
    reason: str = ""
    stale: dict[str, str] | UnsetType = UNSET
    channels: tuple[ChannelReport, ...]


class ChannelList(Control, frozen=True, kw_only=True, tag="channels"):
    """`GET /channels`: the catalogue."""

    channels: tuple[ChannelReport, ...]


class Snapshot(Control, frozen=True, kw_only=True, tag="snapshot"):
    """`GET /snapshot/{channel}`: the newest message of each topic, byte for byte as on the websocket.

    `epoch` and `seq` are the position at which it was taken; pass them as `since` of a `subscribe` to continue there.
    """

    channel: str
    instrument: str | UnsetType = UNSET
    epoch: str
    seq: int
    messages: list[Annotated[Raw, _DATA]]


class History(Control, frozen=True, kw_only=True, tag="history"):
    """`GET /history/{channel}`: what there still is of its topics, oldest first, each message as it was sent.

    Of candles there is one message each, and closed ones that the tape does not have come from the venue's own history:
    these have `seq` and `prev_seq` 0, `cached` true, and `timestamp` and `received_ms` of when the daemon fetched them.

    Attributes:
        interval: of candles, how long each is.
        seq: the tape's newest position when this was made.
        complete_from: from this `seq` on, the tape has every message of these topics; before it some have left.
        more: whether there is more of it, further back.
        before: to go on where this ends, the next request's `before`; absent where `before_ms` is.
        before_ms: the same of candles, as time; ms since 1970.
        reason: why something is not here that was asked for, such as a venue that does not answer.
    """

    channel: str
    instrument: str | UnsetType = UNSET
    interval: str | UnsetType = UNSET
    epoch: str
    seq: int
    complete_from: int
    more: bool
    before: int | UnsetType = UNSET
    before_ms: int | UnsetType = UNSET
    reason: str = ""
    messages: list[Annotated[Raw, _DATA]]


class GapReport(msgspec.Struct, frozen=True, kw_only=True):
    """One gap. `start` and `end` are ISO-8601; `end` is null while it lasts, `channel` is null if it concerns all.

    `count`: how many clients, frames or attempts, depending on the cause; `messages`: how many clients did not get.
    """

    id: int
    cause: Cause
    channel: str | None
    start: Timestamp
    end: Timestamp | None
    duration_s: float
    count: int
    messages: int
    reason: str


class GapList(Control, frozen=True, kw_only=True, tag="gaps"):
    """`GET /gaps`. `more`: how many others there are; `forgotten`: how many were dropped for newer ones."""

    gaps: tuple[GapReport, ...]
    more: int
    forgotten: int


NodeState: TypeAlias = Literal["alone", "leads", "follows", "stands by", "starts", "cut off", "gone"]
"""What a node does.

* `alone`: it takes data in and serves clients, and there is no other;
* `leads`: it takes data in for all;
* `follows`: it serves clients from what another one makes;
* `stands by`: it would lead if the leader were gone;
* `starts`: it does not have the tape yet;
* `cut off`: it does not hear how the channels are; its clients are told that they are stale;
* `gone`: nothing has been heard of it for some seconds.
"""


class WorkerReport(msgspec.Struct, frozen=True, kw_only=True):
    """One of the processes of a node that serve its clients.

    Attributes:
        worker: its number, from 1.
        pid: its process id; null while it is away.
        ready: whether it lets clients in.
        clients: how many it has.
        lag: how many messages of the tape it has yet to take.
        lag_bytes: what waits for it on the way.
        since: when it was started last.
        restarts: how often it had to be started again.
    """

    worker: int
    pid: int | None
    ready: bool
    clients: int
    lag: int
    lag_bytes: int
    since: Timestamp
    restarts: int


class NodeReport(msgspec.Struct, frozen=True, kw_only=True):
    """One node: a daemon, with its workers.

    Attributes:
        role: `both` takes data in and serves clients; `ingest` and `serve` do one of these.
        leads: whether the tape is made there.
        state: what it does; `reason` says more.
        seq: the newest position that it has.
        lag: how many positions it is behind the newest one.
        clients: how many it has.
        since: when it was started.
        age_s: how old this report is.
        workers: the processes that serve its clients; none where it is one process.
    """

    node: str
    role: Literal["both", "ingest", "serve"]
    leads: bool
    state: NodeState = "alone"
    reason: str = ""
    seq: int
    lag: int
    clients: int
    since: Timestamp
    age_s: float = 0
    workers: tuple[WorkerReport, ...] = ()


class EngineReport(msgspec.Struct, frozen=True, kw_only=True):
    """The engine that carries the tape, as the node that answers sees it.

    Attributes:
        address: where it is.
        version: what it is, such as `Redis 7.0.15`; "" before it is known.
        answers: whether it does.
        reason: what is wrong, if anything is.
        entries: how many it has of the tape.
        first, last: the ids of the oldest and the newest of these; "" if there are none.
    """

    address: str
    version: str
    answers: bool
    reason: str = ""
    entries: int
    first: str
    last: str


class ClusterReport(Control, frozen=True, kw_only=True, tag="cluster"):
    """`GET /cluster`: which nodes and processes there are, and how each does.

    Attributes:
        node: who answers.
        leader: the node where the tape is made; "" where nobody knows of one.
        epoch: the tape's.
        seq: its newest position.
        clients: how many there are in all.
        engine: what carries the tape between nodes; absent where there is one node.
    """

    node: str
    leader: str
    epoch: str
    seq: int
    clients: int
    engine: EngineReport | UnsetType = UNSET
    nodes: tuple[NodeReport, ...]


class TestRequest(msgspec.Struct):
    """`POST /ws/test`: `{"message": "Hello, WebSocket!"}`."""

    __test__ = False  # the name is the route's; pytest must not take it for a test class

    message: str
