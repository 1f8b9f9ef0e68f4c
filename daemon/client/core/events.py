"""What a client reports beside the server's own messages: events of its connection, and errors.

ClientError
├── ServerUnavailable   no connection, or not now; trying again later may help
├── ServerRefused       the server does not accept this client: trying again unchanged would fail again
├── CommandRefused      an `error` reply: a channel that does not exist, an option outside its limits
└── NotUnderstood       the other side does not speak this protocol
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from protocol.codes import ErrorCode
from protocol.messages import DataMessage, Lagged, Status, Test


class ClientError(Exception):
    """A failure of the connection or of a command. `str()` is one plain sentence."""


class ServerUnavailable(ClientError):
    """No such host, no answer, or an answer that says "later".

    Attributes:
        retry_after_s: how long the server asked to wait before the next try, if it did.
    """

    def __init__(self, reason: str, retry_after_s: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s


class ServerRefused(ClientError):
    """Trying again unchanged would fail again: a wrong path, no token, a broken rule.

    Attributes:
        code: the HTTP status of the opening handshake, or the websocket close code.
    """

    def __init__(self, reason: str, code: int) -> None:
        super().__init__(reason)
        self.code = code


class CommandRefused(ClientError):
    """The server's `error` reply to a command.

    Attributes:
        code: what kind of error.
        message: what is wrong, what was seen, what is allowed.
        channels: the channels that it concerns, if any.
    """

    def __init__(self, code: ErrorCode, message: str, channels: tuple[str, ...]) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.channels = channels


class NotUnderstood(ClientError):
    """The other side is not tickerd, or is a version that speaks another protocol."""


class Reconnecting(msgspec.Struct, frozen=True):
    """The connection is lost, or an attempt to reopen it has failed; the next attempt follows by itself.

    Until `Resumed` the data received last is not current.

    Attributes:
        reason: why.
        code: the websocket close code; 1006 if there was none (RFC 6455 section 7.1.5).
        retry_in_s: how long until the next attempt.
    """

    reason: str
    code: int
    retry_in_s: float


class Resumed(msgspec.Struct, frozen=True):
    """The connection is back, and every subscription is restored.

    Attributes:
        away_s: how long there was no connection.
        restarted: whether the daemon has begun another tape, so that positions start anew.
        lost: the channels of which messages are missing; a `Lost` has announced each.
    """

    away_s: float
    restarted: bool
    lost: tuple[str, ...] = ()


class Lost(msgspec.Struct, frozen=True):
    """Some messages of these channels will not come (`recovered: false`); those that were kept follow.

    Attributes:
        channels: the channels.
        missed: how many messages, per channel, if the daemon knows the number.
        reason: why.
    """

    channels: tuple[str, ...]
    missed: dict[str, int]
    reason: str


class Gap(msgspec.Struct, frozen=True):
    """Messages are missing without an announcement: the contract is broken, or something on the way lost them.

    Attributes:
        channel: the channel whose messages are missing.
        instrument: "" if the channel is about a whole market.
        after: `seq` of the last message before the gap.
        before: `seq` of the first message after it, which follows.
    """

    channel: str
    instrument: str
    after: int
    before: int


Received: TypeAlias = DataMessage | Status | Lagged | Test | Reconnecting | Resumed | Lost | Gap
"""What iterating over a subscription yields."""


class RoundTrip(msgspec.Struct, frozen=True):
    """The answer to a `ping`.

    Attributes:
        round_trip_s: from sending the command to receiving its answer.
        clock_offset_s: how far the daemon's clock is ahead of this machine's. It is accurate to half the round trip,
            plus the millisecond to which the daemon writes time.
    """

    round_trip_s: float
    clock_offset_s: float
