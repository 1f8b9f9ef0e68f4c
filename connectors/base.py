"""The contract between a venue's connector and the daemon that runs it.

A connector is an object with a `run` that works until it is cancelled or fails. It publishes *events* (normalised
messages), reports *state changes*, and *notes* what is wrong with one instrument while the others go on, through the
`Context` it is handed; it never decides about its own restart. When anything goes wrong with all of it, it raises, and
its supervisor waits and runs it again:

    ConnectorError            the venue's fault; the text goes to clients as the `reason` of a `status`
    ├── VenueUnavailable      worth another try soon: network, 5xx (with `retry_after_s` where the venue said so)
    │   ├── VenueTimeout      it said nothing, or took nothing, for too long
    │   ├── VenueClosed       it ended the connection
    │   ├── VenueThrottled    it asked to be left alone for a while: 429, 418, used up request weight
    │   └── ProxyUnavailable  not the venue but the proxy on the way to it, which cannot be reached or gets nowhere
    ├── VenueRefused          another try soon is pointless: refused region, key, plan; tried again, but slowly
    │   └── ProxyRefused      not the venue but the proxy: a wrong password, or not to this host
    └── PayloadError          the venue sent what its documentation does not allow

Whatever a connector must remember across restarts (its schedule, a cached body, what the venue refused) lives in the
object; whatever belongs to one attempt (sockets, timers) lives in `run`.

What the configuration can say of a venue is a Struct of the venue's own (`VenueSettings`).
"""

from __future__ import annotations

import errno
import os
import socket
import ssl
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Final, Literal, Protocol, TypeAlias, get_args

import msgspec
from msgspec import Meta, inspect

from protocol.fields import Fields
from protocol.messages import State as State
from protocol.messages import TopicCause

if TYPE_CHECKING:  # a client for Python loads this file, and no metrics
    from connectors.metric import Samples

Count: TypeAlias = Annotated[int, Meta(ge=1, le=10_000_000)]
Bytes: TypeAlias = Annotated[int, Meta(ge=1024, le=2**40)]
Seconds: TypeAlias = Annotated[float, Meta(gt=0, le=86_400)]
Percent: TypeAlias = Annotated[float, Meta(gt=0, le=1000)]
HttpUrl: TypeAlias = Annotated[str, Meta(extra={"url": "http"})]
"""`http://` or `https://`; without user, query and fragment, which may hold secrets."""
WebsocketUrl: TypeAlias = Annotated[str, Meta(extra={"url": "ws"})]
"""The same with `ws://` or `wss://`."""


FROM_ENVIRONMENT: Final = "environment"
"""As a venue's proxy: the one that the environment's variables name, if any."""

ProxyUrl: TypeAlias = Annotated[
    str, Meta(description="the URL of a proxy", extra={"secret": True, "proxy": True}, max_length=2048)
]
"""A proxy's URL, which may hold a password; "" for none, or `FROM_ENVIRONMENT`."""


class VenueSettings(msgspec.Struct, frozen=True):
    """`[connectors.VENUE]`: what every venue can be told. A venue adds its own keys, each with a default.

    The types say what a value may be; a secret has `extra={"secret": True}` in its `Meta`, and appears in no `repr`.

    Attributes:
        enabled: whether the venue is called; without it, it has no channels.
        proxy: the way to the venue, for whatever the venue is asked by.
        timeout_s: how long an answer, or a connection and its opening handshake, may take.
        silence_s: without any data for this long, a connection is given up.
        url: the address of its websocket.
        base_url: the address of its HTTP interface.
    """

    enabled: bool = True
    proxy: ProxyUrl = FROM_ENVIRONMENT

    @property
    def address(self) -> str:
        """The URL that is asked; "" where there is none. It decides on what the environment says of proxies."""
        urls = (getattr(self, key) for key, extra in _extras(type(self)).items() if "url" in extra)
        return str(next(urls, ""))

    def refused(self) -> Iterator[tuple[str, str]]:
        """What the types cannot say: each key whose value is not allowed, and what is."""
        yield from ()

    def public(self) -> dict[str, object]:
        """All keys but those that hold secrets."""
        secrets = {key for key, extra in _extras(type(self)).items() if "secret" in extra}
        return {key: msgspec.to_builtins(getattr(self, key)) for key in self.__struct_fields__ if key not in secrets}

    def __repr__(self) -> str:
        secrets = {key for key, extra in _extras(type(self)).items() if "secret" in extra}
        public = ("", FROM_ENVIRONMENT)
        values = {key: getattr(self, key) for key in self.__struct_fields__}
        shown = (f"{key}={'***' if key in secrets and v not in public else repr(v)}" for key, v in values.items())
        return f"{type(self).__name__}({', '.join(shown)})"


def _extras(settings: type[VenueSettings]) -> dict[str, dict[str, object]]:
    """What the `Meta` of each key has in its `extra`."""
    types = {field.name: inspect.type_info(field.type) for field in msgspec.structs.fields(settings)}
    return {key: info.extra or {} for key, info in types.items() if isinstance(info, inspect.Metadata)}


class Event(msgspec.Struct, frozen=True, gc=False):
    """One normalised message of one topic, before it has a place on the tape.

    Attributes:
        channel: the channel's name.
        instrument: `BASE/QUOTE`, or "" where the message is about a whole market.
        data: the JSON of the wire's `data` field: UTF-8, the venue's own bytes wherever possible.
        received_ms: when the venue's bytes were here, ms since 1970.
        price: the venue's digits as a JSON number writes them, or "" where there is none.
        exchange_ms: the venue's event time, ms since 1970, where it gives one.
        cached: whether this repeats a body that the venue has not refreshed.
        lifetime_s: of a body that is fresh, or that the venue has just confirmed: for how long its source's own cadence
            (cache headers, the plan's budget) explains that it is repeated. 0 for a mere repeat, and for what is not
            repeated.
        fields: what messages of its kind have beside the common fields.
        order: where it stands among the events of its channel and instrument: never falls from one to the next, and is
            the same on every connection to the venue; events with the same order differ in their data. None where the
            venue gives nothing of the kind.
        past: whether it belongs to the history that a venue repeats after a subscribe. It is published only if it
            follows what was published before, so after a break; never as the first.
    """

    channel: str
    instrument: str
    data: bytes
    received_ms: int
    price: str = ""
    exchange_ms: int | None = None
    cached: bool = False
    lifetime_s: float = 0.0
    fields: Fields | None = None
    order: int | None = None
    past: bool = False


class StateChange(msgspec.Struct, frozen=True):
    """A channel went into a state, why, and in how many seconds the next attempt follows (None: none is planned)."""

    channel: str
    state: State
    reason: str = ""
    retry_in_s: float | None = None


class TopicNote(msgspec.Struct, frozen=True, gc=False):
    """What is wrong with one topic, whose channel goes on with its others.

    Attributes:
        channel: the channel's name.
        instrument: `BASE/QUOTE`, or "" where the channel is about a whole market.
        cause: `unreadable`: a row is not what the venue documents, and was left out; `silent`: it is missing from an
            answer; `halted`: the venue does not trade it, so what it says of it is no price; `refused`: the venue does
            not serve it; `gap`: something of it is missing in what the venue sent, so nothing comes of it until it is
            whole again, unless the note is `partial`.
        reason: in words, without the instrument; of a row that is left out the field and its value.
        count: how often that was seen since it was told last.
        partial: whether a message was published all the same, without the part that is wrong.
        listed: whether the venue's own list of instruments says so: then it holds whatever data comes, until it is not
            noted any more.
    """

    channel: str
    instrument: str
    cause: TopicCause
    reason: str
    count: int = 1
    partial: bool = False
    listed: bool = False


class Rows(msgspec.Struct):
    """What the rows of one answer or push have become: those that are good, and what is wrong with the others."""

    events: list[Event]
    notes: list[TopicNote]


FailureCause: TypeAlias = Literal[
    "timeout", "closed", "throttled", "unavailable", "refused", "proxy", "payload", "other", "internal"
]
"""Why a connector has to run again, in one word: `internal` is a bug, `proxy` that of the way there."""

FAILURE_CAUSES: Final[tuple[FailureCause, ...]] = get_args(FailureCause)


class ConnectorError(Exception):
    """A failure that clients are told of. `str()` is one plain sentence without secrets or URLs' query strings.

    Attributes:
        cause: the failure in one word, for metrics.
        retry_after_s: how long the venue asked to be left alone; None where it did not say.
        unreached: why nothing was heard of the venue at all, in words that fit every venue; "" if something was.
    """

    cause: ClassVar[FailureCause] = "other"

    def __init__(self, reason: str, *, retry_after_s: float | None = None, unreached: str = "") -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s
        self.unreached = unreached


class VenueUnavailable(ConnectorError):
    """The venue cannot serve us just now: the network, its own trouble, or one of the reasons below."""

    cause: ClassVar[FailureCause] = "unavailable"


class VenueTimeout(VenueUnavailable):
    """The venue said nothing, or took nothing, for too long."""

    cause: ClassVar[FailureCause] = "timeout"


class VenueClosed(VenueUnavailable):
    """The venue ended the connection, or broke off."""

    cause: ClassVar[FailureCause] = "closed"


class VenueThrottled(VenueUnavailable):
    """The venue asked to be left alone for a while."""

    cause: ClassVar[FailureCause] = "throttled"


class VenueRefused(ConnectorError):
    """The venue will not serve us as we are configured: region, key, plan, unknown address."""

    cause: ClassVar[FailureCause] = "refused"


class ProxyUnavailable(VenueUnavailable):
    """The proxy on the way to the venue cannot be reached, does not answer, or cannot reach the venue."""

    cause: ClassVar[FailureCause] = "proxy"


class ProxyRefused(VenueRefused):
    """The proxy on the way to the venue does not let us through as we are configured: a password, its rules."""

    cause: ClassVar[FailureCause] = "proxy"


class PayloadError(ConnectorError):
    """Bytes that are not what the venue documents. Raised by normalisers, and by nothing but them."""

    cause: ClassVar[FailureCause] = "payload"


def leaves(error: BaseException) -> Iterator[BaseException]:
    """The single errors of a group, which may hold groups; an error that is no group is its own only one."""
    if isinstance(error, BaseExceptionGroup):
        for member in error.exceptions:
            yield from leaves(member)
    else:
        yield error


def what_failed(error: OSError) -> str:
    """The distinct reasons behind a failed attempt to connect: one per address family is usual."""
    if isinstance(error, socket.gaierror):
        return error.strerror or "the name is not known"
    # By number: trio puts the socket's address into the text.
    reasons = (os.strerror(e.errno) if e.errno else str(e) for e in _attempts(error))
    return ", ".join(dict.fromkeys(reasons))


UNANSWERED: Final = "connections are not answered"
"""Why a venue is `unreached` where even opening a connection takes too long."""

_NO_ROUTE: Final = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EHOSTDOWN})


def unreached(error: OSError) -> str:
    """Why a failed attempt to connect has reached nobody; "" where somebody refused, or it is something else."""
    if isinstance(error, socket.gaierror):
        return "name resolution fails"
    numbers = {attempt.errno for attempt in _attempts(error)}
    if numbers <= _NO_ROUTE:
        return "there is no route to them"
    return UNANSWERED if numbers <= _NO_ROUTE | {errno.ETIMEDOUT} else ""


def _attempts(error: OSError) -> Iterator[OSError]:
    """The single failures behind trio's summary of them."""
    summary = error.__cause__
    if isinstance(summary, BaseExceptionGroup):
        yield from (leaf for leaf in summary.exceptions if isinstance(leaf, OSError))
    else:
        yield error


def tls_failed(cause: BaseException | None) -> str:
    """Why a TLS handshake failed, by what the library said, without its source lines."""
    if isinstance(cause, ssl.SSLCertVerificationError):
        return cause.verify_message
    if isinstance(cause, ssl.SSLError) and cause.reason:
        return cause.reason.replace("_", " ").lower()
    return "the connection broke"


class Context(Protocol):
    """What a connector may do to the world."""

    async def publish(self, events: Sequence[Event]) -> None:
        """Hand events on, in order. Waits while the hub is busy: that back-pressure slows this venue's link.

        A channel whose event arrives becomes `live`. If cancelled, none of the events is published.
        """
        ...

    async def report(self, change: StateChange) -> None:
        """Tell a channel's subscribers about its state. Reporting the state it is in already changes nothing."""
        ...

    async def note(self, notes: Sequence[TopicNote]) -> None:
        """Say what is wrong with single topics. It holds until their data comes again, or it is not noted any more.

        What goes on is to be noted again every few seconds, and no more often (`connectors.limits.notes`).
        """
        ...

    def now_ms(self) -> int:
        """Wall-clock time, ms since 1970: for stamps, never for durations."""
        ...


class Connector(Protocol):
    """One link to one venue, serving one or more channels."""

    @property
    def name(self) -> str:
        """A name for logs and metrics, unique in the daemon."""
        ...

    @property
    def channels(self) -> tuple[str, ...]:
        """The channels that fall silent when this connector does."""
        ...

    @property
    def unreadable(self) -> int:
        """How many frames of the venue were left out since the start, because they are not what it documents."""
        return 0

    def measure(self, samples: Samples) -> None:
        """Add what it has counted, under its name in the label `connector`."""

    async def run(self, context: Context) -> None:
        """Serve the channels until cancelled.

        Raises:
            ConnectorError: see the module's tree. Anything else is a bug, and its supervisor treats it as one.
        """
        ...
