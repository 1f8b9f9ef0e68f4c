"""What is asked and answered over plain HTTP: the bodies, beside those of `protocol/messages.py`.

Every answer is an object with `type` and `timestamp` as every message has them; a refusal is an `error`.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal, TypeAlias

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from protocol.kinds import MESSAGES
from protocol.messages import Control, ServerInfo, State, Timestamp
from protocol.payloads import SCHEMAS

Cause: TypeAlias = Literal["outage", "stale", "resync", "restart", "lagged", "refused", "unreadable", "unstored"]
"""What a gap comes from.

* `outage`: there was no link to the venue;
* `stale`: there was one, and no data;
* `resync`: clients that came back could not be given all that they had missed, and began anew;
* `restart`: the daemon was not there, or what it had sent was not stored;
* `lagged`: clients did not keep up;
* `refused`: a connector's messages that the hub would not publish;
* `unreadable`: a venue's frames that are not what it documents;
* `unstored`: the disk took nothing; nobody missed anything by that, unless an unclean stop came before its end.
"""

_DATA: Final = Meta(extra_json_schema={"anyOf": [{"$ref": f"{SCHEMAS}{message.__name__}"} for message in MESSAGES]})
"""One data message; the annotation of a field that has its bytes."""


class ChannelReport(msgspec.Struct, frozen=True, kw_only=True):
    """One channel and how it does; `since` is ISO-8601, `age_s` the age of its last message.

    Attributes:
        kind: what the venue is asked for.
        type: the type of its data messages.
        view: what a reader finds in them: `price`; `day` (a price, and the summary of 24 hours); `book` (`bids` and
            `asks`); `market`, `top` or `trending` (figures of the whole market, or lists of coins).
        stale_after_s: the silence that makes it `stale`, as things stand.
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


class Health(Control, frozen=True, kw_only=True, tag="health"):
    """`GET /healthz`: the process is alive, and its event loop turns."""

    status: str
    server: ServerInfo
    epoch: str
    seq: int


class Readiness(Control, frozen=True, kw_only=True, tag="readiness"):
    """`GET /readyz`: whether clients are let in and get data, and why not; or what else is amiss.

    `stale` has the channels whose data is not what it should be, by name, with the reason.
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

    `epoch` and `seq` are the position it was taken at: `since` of a `subscribe` continues from there.
    """

    channel: str
    instrument: str | UnsetType = UNSET
    epoch: str
    seq: int
    messages: list[Annotated[Raw, _DATA]]


class GapReport(msgspec.Struct, frozen=True, kw_only=True):
    """One gap. `start` and `end` are ISO-8601; `end` is null while it lasts, `channel` where it concerns all.

    `count`: clients, frames or attempts, as the cause has it; `messages`: those that somebody did not get.
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
    """`GET /gaps`. `more`: how many others there are; `forgotten`: how many have made room for newer ones."""

    gaps: tuple[GapReport, ...]
    more: int
    forgotten: int


class TestRequest(msgspec.Struct):
    """`POST /ws/test`: `{"message": "Hello, WebSocket!"}`."""

    __test__ = False  # the name is the route's; pytest must not take it for a test class

    message: str
