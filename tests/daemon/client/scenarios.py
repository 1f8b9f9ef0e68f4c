"""What happens to every client, and what each must make of it: one list for the three clients, as data.

A scenario is a row of *acts*, one for each connection that the client makes: a daemon that says these things, a proxy
that answers by itself, somebody who hangs up. What the client tells is written down in words that all clients share;
how often it connects, and from which position it resumes, is part of what is expected.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeAlias

CHANNELS = ("bitcoinprice", "ethprice")
BITCOIN, ETHER = CHANNELS
EPOCH = "first"
STAMP = "2025-12-08T16:30:45.123Z"

Words: TypeAlias = dict[str, Any]
"""A message of the daemon."""

HTML = b"<html><title>A proxy's own page</title></html>"


def price(seq: int, prev_seq: int, channel: str = BITCOIN, **more: Any) -> Words:
    """A data message."""
    instrument = "BTC/USDT" if channel == BITCOIN else "ETH/USDT"
    common = {"exchange": "okx", "price": 1.5, "received_ms": 1, "data": {"last": "1.50"}}
    told = {"connector_id": channel, "instrument": instrument, "seq": seq, "prev_seq": prev_seq}
    return {"type": "price_update", **told, **common, **more}


@dataclass(frozen=True)
class Serve:
    """A daemon: it welcomes, answers each `subscribe` and `ping`, and says the rest once all is subscribed to.

    Attributes:
        says: messages, or text that is sent as it is.
        epoch, seq: of its tape.
        recovered: what it answers to a `since`.
        missed: how many messages per channel it says are lost.
        heartbeat_s: of the welcome.
        mute: it answers nothing at all, not even a ping.
        refuses: the code of the error by which it answers `subscribe`.
        wants: how many channels are subscribed to before it goes on; 0 for all of the scenario's.
        then: what it says once the client has changed its options, and `then_seq` what is the tape's then.
        close: the code and reason of the close frame behind all that; None to cut the connection; () to stay.
    """

    says: tuple[Words | str | bytes, ...] = ()
    epoch: str = EPOCH
    seq: int = 10
    recovered: bool = True
    missed: int | None = None
    heartbeat_s: float = 60.0
    mute: bool = False
    refuses: str = ""
    wants: int = 0
    then: tuple[Words, ...] = ()
    then_seq: int = 0
    close: tuple[int, str] | tuple[()] | None = ()


@dataclass(frozen=True)
class Answer:
    """Something in between: it answers the opening handshake by itself."""

    status: int
    body: bytes = HTML
    headers: tuple[str, ...] = ()


@dataclass(frozen=True)
class HangUp:
    """The connection breaks during the opening handshake, after so many bytes of an answer."""

    after: bytes = b""


Act: TypeAlias = Serve | Answer | HangUp


@dataclass(frozen=True)
class Scenario:
    """One story.

    Attributes:
        name: what happens.
        acts: the connections, in order. There must be no further one.
        messages: (channel, seq) of the data messages that the client hands over, in order.
        told: what else it tells, in order: ("away",), ("back", restarted, lost), ("gap", channel, before), ("lagged",
            missed), ("status", channel, state), ("refused", code), ("ended", code): 1003 where it does not understand.
        resumes: per connection of a daemon, the position from which each channel is asked for; None from the newest.
        channels: what the client subscribes to.
        leaves: the channel that it leaves after the first message of it.
        options: what it asks for at first, as fields of `subscribe`.
        changes: what it asks for instead after its first message; None: it changes nothing.
        asked: per connection of a daemon, each `interval_ms` and number of instruments that it has asked for; () where
            that is of no concern.
        waits_s: how long each `away` says that the client waits; None: whatever it is.
    """

    name: str
    acts: tuple[Act, ...]
    messages: tuple[tuple[str, int], ...] = ()
    told: tuple[tuple[Any, ...], ...] = ()
    resumes: tuple[dict[str, int | None], ...] = ()
    channels: tuple[str, ...] = (BITCOIN,)
    leaves: str = ""
    options: Words = field(default_factory=dict)
    changes: Words | None = None
    asked: tuple[tuple[tuple[int | None, int | None], ...], ...] = ()
    waits_s: tuple[float | None, ...] = field(default=())


NEW: dict[str, int | None] = {BITCOIN: None}
AWAY = ("away",)
BACK = ("back", False, ())
CUT = Serve((price(11, 9),), close=None)
ON = Serve((price(12, 11),), seq=12)
BOTH = ((BITCOIN, 11), (BITCOIN, 12))


def goodbye(retry_after_s: float) -> Words:
    """What a daemon says before it stops."""
    return {"type": "goodbye", "code": 1001, "reason": "stopping", "retry_after_s": retry_after_s}


SCENARIOS = (
    Scenario(
        "messages come in order, each at most once",
        (Serve((price(9, 3), price(9, 3), price(11, 9), price(9, 3), price(11, 9), price(15, 11))),),
        messages=((BITCOIN, 9), (BITCOIN, 11), (BITCOIN, 15)),
        resumes=(NEW,),
    ),
    Scenario(
        "a connection breaks: each channel goes on where it was",
        (
            Serve((price(11, 9), price(14, 5, ETHER)), close=None),
            Serve((price(12, 11), price(20, 14, ETHER)), seq=20),
        ),
        messages=((BITCOIN, 11), (ETHER, 14), (BITCOIN, 12), (ETHER, 20)),
        told=(AWAY, BACK),
        resumes=({BITCOIN: None, ETHER: None}, {BITCOIN: 11, ETHER: 14}),
        channels=CHANNELS,
    ),
    Scenario(
        "a daemon stops cleanly, says when to come back, and goes on with its tape",
        (Serve((price(11, 9), goodbye(0.3)), close=(1001, "stopping")), ON),
        messages=BOTH,
        told=(AWAY, BACK),
        resumes=(NEW, {BITCOIN: 11}),
        waits_s=(0.3,),
    ),
    Scenario(
        "a daemon is restarted with another tape",
        (CUT, Serve((price(3, 2),), epoch="second", seq=3, recovered=False)),
        messages=((BITCOIN, 11), (BITCOIN, 3)),
        told=(AWAY, ("back", True, (BITCOIN,))),
        resumes=(NEW, {BITCOIN: 11}),
    ),
    Scenario(
        "what was missed is gone: it goes on from the newest message, and no gap is told twice",
        (CUT, Serve((price(40, 39), price(41, 40)), seq=40, recovered=False, missed=28)),
        messages=((BITCOIN, 11), (BITCOIN, 40), (BITCOIN, 41)),
        told=(AWAY, ("back", False, (BITCOIN,))),
        resumes=(NEW, {BITCOIN: 11}),
    ),
    Scenario(
        "something on the way loses messages: a gap is told before the message behind it",
        (Serve((price(11, 9), price(20, 15), price(21, 20))),),
        messages=((BITCOIN, 11), (BITCOIN, 20), (BITCOIN, 21)),
        told=(("gap", BITCOIN, 20),),
        resumes=(NEW,),
    ),
    Scenario(
        "a client that lags is told, and what was announced is no gap",
        (
            Serve(
                (
                    price(11, 9),
                    {"type": "lagged", "missed": 9, "from_seq": 12, "to_seq": 30, "by_channel": {BITCOIN: 9}},
                    price(30, 28),
                    price(31, 30),
                )
            ),
        ),
        messages=((BITCOIN, 11), (BITCOIN, 30), (BITCOIN, 31)),
        told=(("lagged", 9),),
        resumes=(NEW,),
    ),
    Scenario(
        "a channel's state is told",
        (Serve(({"type": "status", "channel": BITCOIN, "state": "stale", "since": STAMP, "reason": "silent"},)),),
        told=(("status", BITCOIN, "stale"),),
        resumes=(NEW,),
    ),
    Scenario(
        "a token is revoked: the client does not come back",
        (Serve((price(11, 9),), close=(1008, "token partner was revoked")),),
        messages=((BITCOIN, 11),),
        told=(("ended", 1008),),
        resumes=(NEW,),
    ),
    Scenario(
        "a token is changed: the client connects again",
        (Serve((price(11, 9),), close=(1013, "token partner was changed: connect again")), ON),
        messages=BOTH,
        told=(AWAY, BACK),
        resumes=(NEW, {BITCOIN: 11}),
    ),
    *(
        Scenario(
            f"a connection is closed with {code}: the client connects again",
            (Serve((price(11, 9),), close=(code, "")), ON),
            messages=BOTH,
            told=(AWAY, BACK),
            resumes=(NEW, {BITCOIN: 11}),
        )
        for code in (1000, 1011, 4000, 4001, 4999)
    ),
    Scenario(
        "a channel is left: it comes no more, and is not asked for again",
        (
            Serve((price(11, 9), price(14, 5, ETHER)), close=None),
            Serve((price(12, 11), price(20, 14, ETHER)), seq=20, wants=1),
        ),
        messages=((BITCOIN, 11), (ETHER, 14), (BITCOIN, 12)),
        told=(AWAY, BACK),
        resumes=({BITCOIN: None, ETHER: None}, {BITCOIN: 11}),
        channels=CHANNELS,
        leaves=ETHER,
    ),
    Scenario(
        "the options are the same after a loss, and what an interval leaves out is no gap",
        (Serve((price(11, 9), price(20, 17)), close=None), Serve((price(30, 28), price(40, 37)), seq=30)),
        messages=((BITCOIN, 11), (BITCOIN, 20), (BITCOIN, 30), (BITCOIN, 40)),
        told=(AWAY, BACK),
        resumes=(NEW, NEW),
        options={"interval_ms": 500, "instruments": ["BTC/USDT"]},
        asked=(((500, 1),), ((500, 1),)),
    ),
    Scenario(
        "from an interval to every message: what was left out is no gap, and from then on each one counts",
        (
            Serve(
                (price(11, 3), price(20, 17)),
                then=(price(38, 35), price(41, 38), price(50, 47)),
                then_seq=40,
                close=None,
            ),
            Serve((price(52, 50),), seq=52),
        ),
        messages=((BITCOIN, 11), (BITCOIN, 20), (BITCOIN, 38), (BITCOIN, 41), (BITCOIN, 50), (BITCOIN, 52)),
        told=(("gap", BITCOIN, 50), AWAY, BACK),
        resumes=(NEW, {BITCOIN: 50}),
        options={"interval_ms": 500},
        changes={},
        asked=(((500, None), (None, None)), ((None, None),)),
    ),
    Scenario(
        "from every message to an interval: after a loss it begins with the newest",
        (
            Serve((price(11, 9),), then=(price(30, 25), price(50, 47)), then_seq=28, close=None),
            Serve((price(70, 60),), seq=70),
        ),
        messages=((BITCOIN, 11), (BITCOIN, 30), (BITCOIN, 50), (BITCOIN, 70)),
        told=(AWAY, BACK),
        resumes=(NEW, NEW),
        changes={"interval_ms": 500},
        asked=(((None, None), (500, None)), ((500, None),)),
    ),
    Scenario(
        "an instrument more: its first message is no gap, and a later one that is missing is",
        (
            Serve(
                (price(11, 9),),
                then=(price(12, 4, instrument="ETH/USDT"), price(15, 11), price(21, 16, instrument="ETH/USDT")),
                then_seq=14,
                close=None,
            ),
            Serve((price(22, 15),), seq=22),
        ),
        messages=((BITCOIN, 11), (BITCOIN, 12), (BITCOIN, 15), (BITCOIN, 21), (BITCOIN, 22)),
        told=(("gap", BITCOIN, 21), AWAY, BACK),
        resumes=(NEW, {BITCOIN: 21}),
        options={"instruments": ["BTC/USDT"]},
        changes={"instruments": ["BTC/USDT", "ETH/USDT"]},
        asked=(((None, 1), (None, 2)), ((None, 2),)),
    ),
    Scenario(
        "types, fields and codes of a later version are passed over",
        (
            Serve(
                (
                    {"type": "weather", "channel": BITCOIN},
                    {"type": "weather_update", "connector_id": "x", "seq": 12, "prev_seq": 0, "data": {}},
                    {"type": "error", "code": "brand_new", "message": "of a later version"},
                    price(11, 9, novel={"field": [1]}),
                    {"type": "status", "channel": BITCOIN, "state": "live", "since": STAMP, "novel": 1},
                )
            ),
        ),
        messages=((BITCOIN, 11),),
        told=(("status", BITCOIN, "live"),),
        resumes=(NEW,),
    ),
    Scenario(
        "a proxy answers by itself while the daemon is away: the client tries until it is back",
        (CUT, *(Answer(status) for status in (404, 520, 530, 502, 503, 403, 200)), ON),
        messages=BOTH,
        told=(*[AWAY] * 8, BACK),
        resumes=(NEW, {BITCOIN: 11}),
    ),
    Scenario(
        "a proxy sends elsewhere: the client does not follow",
        (CUT, Answer(302, headers=("Location: http://127.0.0.1:1/login",)), ON),
        messages=BOTH,
        told=(AWAY, AWAY, BACK),
        resumes=(NEW, {BITCOIN: 11}),
    ),
    *(
        Scenario(
            f"the opening handshake breaks {where}",
            (CUT, HangUp(after), ON),
            messages=BOTH,
            told=(AWAY, AWAY, BACK),
            resumes=(NEW, {BITCOIN: 11}),
        )
        for where, after in (("before an answer", b""), ("within the answer", b"HTTP/1.1 101 Switching Pro"))
    ),
    Scenario(
        "something else speaks there for a while",
        (CUT, HangUp(b"220 mail.example.com ready\r\n\r\n"), ON),
        messages=BOTH,
        told=(AWAY, AWAY, BACK),
        resumes=(NEW, {BITCOIN: 11}),
    ),
    Scenario(
        "the daemon falls silent without a word",
        (Serve((price(11, 9),), heartbeat_s=0.2, mute=True), ON),
        messages=BOTH,
        told=(AWAY, BACK),
        resumes=(NEW, {BITCOIN: 11}),
    ),
    Scenario(
        "there is no such channel",
        (Serve(refuses="unknown_channel"),),
        told=(("refused", "unknown_channel"),),
        resumes=(NEW,),
    ),
    Scenario(
        "what comes is not a message: the client ends",
        (Serve((price(11, 9), "<html>")),),
        messages=((BITCOIN, 11),),
        told=(("ended", 1003),),
        resumes=(NEW,),
    ),
    Scenario(
        "what comes is binary: the client ends",
        (Serve((price(11, 9), b"\x81\xa4type\xa4pong")),),
        messages=((BITCOIN, 11),),
        told=(("ended", 1003),),
        resumes=(NEW,),
    ),
)
"""All of them."""
