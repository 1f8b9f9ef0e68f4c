"""Another configuration for a daemon that runs: what of it changes, and how the catalogue is exchanged.

The clients stay. What they are subscribed to goes on where it is the same as before; a channel that is taken away is
reported `down` once, and is silent from then on; one that comes is there to be subscribed to. The daemon itself
(`daemon.app`) does the rest in the order that its components need.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import msgspec

from connectors.base import StateChange
from daemon.config.load import Config
from daemon.fanout.hub import Hub
from daemon.tape.tape import NOTICE, STATUS, Topic
from protocol.channels import WHOLE_MARKET, Catalogue

REMOVED: Final = "taken out of the configuration"

_FIXED: Final = (
    *("server.host", "server.port", "server.backlog"),
    *("tape.entries", "tape.bytes", "tape.path"),
    *("hub.inbox_batches", "log.format"),
)
"""Keys that are looked at once, at the start."""


def changed_venues(old: Config, new: Config) -> Iterator[str]:
    """The venues whose connectors have to be others: their settings or channels are not what they were."""
    for venue in new.connectors.__struct_fields__:
        before, after = (
            (getattr(config.connectors, venue), [each for each in config.channels if each.exchange == venue])
            for config in (old, new)
        )
        if before != after:
            yield venue


def fixed_keys(old: Config, new: Config) -> list[str]:
    """The keys that have another value now, which only a restart brings into force."""
    return [key for key in _FIXED if _value(old, key) != _value(new, key)]


def known_topics(catalogue: Catalogue) -> Callable[[Topic], bool]:
    """Whether there is such a topic under this catalogue."""

    def known(topic: Topic) -> bool:
        channel = catalogue.get(topic[0])
        return topic == NOTICE or (channel is not None and topic[1] in (*channel.instruments, WHOLE_MARKET, STATUS))

    return known


def adopt(hub: Hub, catalogue: Catalogue) -> None:
    """Exchange the hub's catalogue, its board's channels, and what the tape shows of them. Sync.

    To be called when the connectors of all channels that change have ended and everything of theirs is published.
    """
    now_ms = hub.clock.now_ms()
    removed = [channel.name for channel in hub.catalogue if channel.name not in catalogue]
    hub.publish([StateChange(name, "down", REMOVED) for name in removed])
    for name in removed:
        hub.ledger.close(name, now_ms)
    changed = {channel.name for channel in catalogue if hub.catalogue.get(channel.name) != channel}
    hub.board.adopt(catalogue, changed, now_ms)
    hub.catalogue = catalogue
    hub.tape.forget(known_topics(catalogue))


def _value(config: Config, key: str) -> object:
    section, name = key.split(".")
    value: msgspec.Struct = getattr(config, section)
    return getattr(value, name)
