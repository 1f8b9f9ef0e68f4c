"""`[channels.NAME]`: the keys of a section, and the channel that it and the defaults make.

The defaults themselves are in `daemon.config.load`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Final, TypeAlias

import msgspec
from msgspec import Meta

from connectors.venues.registry import VENUES, Venue
from daemon.config.reader import Problems, dotted, shown
from protocol.channels import Channel
from protocol.kinds import KINDS, Kind, View

ConnectorName: TypeAlias = Annotated[
    str, Meta(pattern=rf"^({'|'.join(VENUES)})\Z", description=", ".join(map(shown, VENUES)))
]
_UNSEEN: Final = (
    r"\x00-\xa0\xad\s\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202f\u2060-\u206f\u3164"
    r"\ud800-\uf8ff\ufe00-\ufe0f\ufeff\uff0f\uffa0\ufff0-\uffff"
)
"""Signs of ASCII, spaces, and what is not to be seen or looks like the stroke: two names could look alike."""
_SIDE: Final = rf"(?:[A-Z0-9]|[^{_UNSEEN}]){{1,20}}"
Instrument: TypeAlias = Annotated[
    str,
    Meta(
        pattern=rf"^{_SIDE}/{_SIDE}\Z",
        description="BASE/QUOTE in capitals and digits, or in another script, as BTC/USDT",
    ),
]
Instruments: TypeAlias = Annotated[
    tuple[Instrument, ...],
    Meta(min_length=1, max_length=1000, description="a list of 1 to 1000, each BASE/QUOTE, as BTC/USDT"),
]

_POLLED: Final = frozenset(kind for venue in VENUES.values() for kind in venue.polled)
"""The kinds that are polled."""

_SHAPES: Final = {"levels": View.BOOK, "every_ms": View.BOOK, "interval": View.CANDLE}
"""The keys that only channels with such messages have, and only if they are pushed."""

_NAME: Final = re.compile(r"[a-z0-9_]{1,64}")


class ChannelSection(msgspec.Struct, frozen=True):
    """One section as it is written; None for a key that was left out.

    Attributes:
        connector: the venue.
        kind: what it is asked for; a venue that is not polled needs none for its ticker.
        instrument: the only one.
        instruments: several; a channel has one of the two, unless it is about a whole market.
        cadence_s: how often the venue is polled.
        stale_after_s: after so long without data the channel is `stale`; 0 leaves that to the daemon.
        levels: of a book, on each side.
        every_ms: of a book, how often at most.
        interval: of candles, as `1m`.
        enabled: whether there is the channel.
    """

    connector: ConnectorName | None = None
    kind: str | None = None
    instrument: Instrument | None = None
    instruments: Instruments | None = None
    cadence_s: Annotated[float, Meta(ge=0.01, le=86_400)] | None = None
    stale_after_s: Annotated[float, Meta(ge=0, le=86_400)] | None = None
    levels: Annotated[int, Meta(ge=1, le=1000)] | None = None
    every_ms: Annotated[int, Meta(ge=10, le=60_000)] | None = None
    interval: Annotated[str, Meta(max_length=64)] | None = None
    enabled: bool = True


def channels(
    defaults: Mapping[str, ChannelSection],
    given: Mapping[str, ChannelSection],
    cadence_s: float,
    problems: Problems,
) -> Iterator[Channel]:
    """The enabled channels: first the defaults, as the configuration changes them, then the others.

    Args:
        defaults: The channels that exist without a section of their own.
        given: The sections of the configuration, by name.
        cadence_s: The default cadence of a scheduled channel.
        problems: Collects what is not allowed; a channel with a problem is left out.
    """
    for name, section in _merged(defaults, given).items():
        key = dotted(("channels", name))
        if not _NAME.fullmatch(name):
            problems.value(key, f"the name {shown(name)}", "a name of 1 to 64 of a to z, 0 to 9 and _")
            continue
        if not section.enabled or problems.concern(key):
            continue
        for name_of_key, seen, allowed in _refused(section):
            problems.value(f"{key}.{name_of_key}", seen, allowed)
        if section.connector is not None and not problems.concern(key):
            yield _channel(name, section, VENUES[section.connector], cadence_s)


def _merged(defaults: Mapping[str, ChannelSection], given: Mapping[str, ChannelSection]) -> dict[str, ChannelSection]:
    merged = dict(defaults) | dict(given)
    for name in defaults.keys() & given.keys():
        default, section = defaults[name], given[name]
        if section.connector not in (None, default.connector):
            # The default's other keys do not apply to another venue.
            continue
        inherited: dict[str, Any] = msgspec.structs.asdict(default)
        if section.instrument is not None or section.instruments is not None:
            inherited |= {"instrument": None, "instruments": None}
        own = {key: value for key, value in msgspec.structs.asdict(section).items() if value is not None}
        merged[name] = ChannelSection(**inherited | own)
    return merged


def _kind(section: ChannelSection, venue: Venue[Any]) -> str | None:
    """The kind of the section. Without the key it is the venue's only one, or, where it pushes, its first one."""
    usual = venue.kinds[0] if len(venue.kinds) == 1 or venue.kinds[0] in venue.streamed else None
    return usual if section.kind is None else section.kind


def _refused(section: ChannelSection) -> Iterator[tuple[str, str, str]]:
    """Key, value seen and what is allowed, for rules beyond types and ranges."""
    if section.connector is None:
        yield "connector", "none", ", ".join(map(shown, VENUES))
        return
    venue = VENUES[section.connector]
    kind = _kind(section, venue)
    if kind not in venue.kinds:
        seen = "none" if section.kind is None else shown(section.kind)
        yield "kind", seen, ", ".join(map(shown, venue.kinds))
    if kind not in venue.polled and section.cadence_s is not None:
        yield "cadence_s", shown(section.cadence_s), f"no such key, since {venue.name} pushes: it has no schedule"
    if kind in venue.kinds:
        yield from _refused_of_kind(section, venue, KINDS[kind])
    one, several = section.instrument, section.instruments
    if kind in KINDS and KINDS[kind].whole_market:
        for key, given in (("instrument", one), ("instruments", several)):
            if given is not None:
                yield key, shown(given), f"no such key, since a channel of kind {shown(kind)} is about the whole market"
    elif one is None and several is None:
        if venue.is_derived:
            return  # then it has those of the channels that it is made of
        yield "instrument", "none", "BASE/QUOTE, as BTC/USDT; or a list of them as `instruments`"
    elif one is not None and several is not None:
        yield "instruments", shown(several), "`instrument` or `instruments`, not both"
    elif several is not None and len(set(several)) < len(several):
        yield "instruments", shown(several), "each instrument once"


def _refused_of_kind(section: ChannelSection, venue: Venue[Any], kind: Kind) -> Iterator[tuple[str, str, str]]:
    """The keys that channels of some kinds have."""
    for key, of in _SHAPES.items():
        given = getattr(section, key)
        # A book that is polled has the levels that its venue's section says.
        if given is not None and (kind.view is not of or kind.name in venue.polled):
            having = [shown(each.name) for each in KINDS.values() if each.view is of and each.name not in _POLLED]
            yield key, shown(given), f"no such key, since only channels of kind {', '.join(having)} have it"
    if kind.view is View.CANDLE and section.interval is not None and section.interval not in venue.intervals:
        yield "interval", shown(section.interval), ", ".join(map(shown, venue.intervals))
    if kind.made_of and section.stale_after_s is not None:
        why = f"since it is made of channels of kind {shown(kind.made_of)}, which have their own"
        yield "stale_after_s", shown(section.stale_after_s), f"no such key, {why}"


def settled(served: Sequence[Channel]) -> Iterator[Channel]:
    """The channels, where those that are made of others have the instruments of these, unless they name their own."""
    for channel in served:
        if channel.kind.made_of and not channel.instruments:
            of_others = dict.fromkeys(
                instrument
                for other in served
                if other.kind.name == channel.kind.made_of
                for instrument in other.instruments
            )
            yield msgspec.structs.replace(channel, instruments=tuple(of_others) or VENUES[channel.exchange].instruments)
        else:
            yield channel


def unfounded(served: Sequence[Channel]) -> Iterator[str]:
    """A sentence for each channel that is made of others where no other has an instrument of it."""
    for channel in served:
        if channel.kind.made_of:
            had = {name for other in served if other.kind.name == channel.kind.made_of for name in other.instruments}
            lacking = [name for name in channel.instruments if name not in had]
            if lacking:
                what = f"no channel of kind {shown(channel.kind.made_of)} has {', '.join(lacking)}"
                yield f"channels.{channel.name} has nothing to say of some instruments: {what}"


def _channel(name: str, section: ChannelSection, venue: Venue[Any], cadence_s: float) -> Channel:
    one = () if section.instrument is None else (section.instrument,)
    kind = KINDS[_kind(section, venue) or ""]
    shape = {key: value for key in _SHAPES if (value := getattr(section, key)) is not None}
    return Channel(
        name=name,
        exchange=venue.name,
        kind=kind,
        instruments=section.instruments or one,
        cadence_s=(section.cadence_s or cadence_s) if kind.name in venue.polled else None,
        stale_after_s=section.stale_after_s or None,
        **{"interval": venue.usual_interval} | shape,
    )
