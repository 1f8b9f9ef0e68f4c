"""What a client is told beside the server's own messages: events of its connection, and errors.

ClientError
├── ServerUnavailable   no connection, or not now; trying again later may help
├── ServerRefused       the server will not have this client as it is: trying again would end the same way
├── CommandRefused      an `error` reply: a channel that does not exist, an option outside its limits
└── NotUnderstood       whoever answers does not speak this protocol
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
        retry_after_s: when the server asked not to be asked again sooner.
    """

    def __init__(self, reason: str, retry_after_s: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s


class ServerRefused(ClientError):
    """Coming back unchanged would end the same way: a wrong path, no token, a broken rule.

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
        channels: those that it is about, where it is about some.
    """

    def __init__(self, code: ErrorCode, message: str, channels: tuple[str, ...]) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.channels = channels


class NotUnderstood(ClientError):
    """The other side is no tickerd, or one that speaks another protocol."""


class Reconnecting(msgspec.Struct, frozen=True):
    """The connection is lost, or an attempt to open it again has failed; the next follows by itself.

    What was received last is no longer the present until `Resumed`.

    Attributes:
        reason: why.
        code: the websocket close code; 1006 where there was none (RFC 6455 section 7.1.5).
        retry_in_s: how long until the next attempt.
    """

    reason: str
    code: int
    retry_in_s: float


class Resumed(msgspec.Struct, frozen=True):
    """The connection is back, and every subscription is restored.

    Attributes:
        away_s: for how long there was none.
        restarted: whether the daemon has begun another tape, so that positions count anew.
        lost: the channels of which messages are missing; a `Lost` has told of each.
    """

    away_s: float
    restarted: bool
    lost: tuple[str, ...] = ()


class Lost(msgspec.Struct, frozen=True):
    """Messages of these channels will not come (`recovered: false`); what is left of them follows.

    Attributes:
        channels: which.
        missed: how many, per channel, where the daemon knows it.
        reason: why.
    """

    channels: tuple[str, ...]
    missed: dict[str, int]
    reason: str


class Gap(msgspec.Struct, frozen=True):
    """Messages are missing that nobody announced: the contract is broken, or something in between lost them.

    Attributes:
        channel: of which messages are missing.
        instrument: "" where the channel is about a whole market.
        after: `seq` of the last message before the gap.
        before: `seq` of the first message behind it, which follows.
    """

    channel: str
    instrument: str
    after: int
    before: int


Received: TypeAlias = DataMessage | Status | Lagged | Test | Reconnecting | Resumed | Lost | Gap
"""What iterating a subscription gives."""


class RoundTrip(msgspec.Struct, frozen=True):
    """The answer to a `ping`.

    Attributes:
        round_trip_s: from sending the command to having its answer.
        clock_offset_s: how far the daemon's clock is ahead of this machine's. It holds to within half the round trip,
            and to the millisecond in which the daemon writes time.
    """

    round_trip_s: float
    clock_offset_s: float
