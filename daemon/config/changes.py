"""Another configuration for a daemon that runs: what of it changes, and what takes a restart.

The daemon itself (`daemon.app`) brings the changes into force, in the order that its components need.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec

from connectors.venues.registry import VENUES
from daemon.config.load import Config

_FIXED: Final = (
    *("server.host", "server.port", "server.backlog"),
    *("tape.entries", "tape.bytes", "tape.path"),
    *("hub.inbox_batches", "log.format"),
)
"""Keys that are looked at once, at the start."""


def changed_venues(old: Config, new: Config) -> Iterator[str]:
    """The venues whose connectors have to be others: their settings or channels are not what they were."""
    for name, venue in VENUES.items():
        before, after = (
            (config.connectors.of(venue), [channel for channel in config.channels if channel.exchange == name])
            for config in (old, new)
        )
        if before != after:
            yield name


def fixed_keys(old: Config, new: Config) -> list[str]:
    """The keys that have another value now, which only a restart brings into force."""
    return [key for key in _FIXED if _value(old, key) != _value(new, key)]


def _value(config: Config, key: str) -> object:
    section, name = key.split(".")
    value: msgspec.Struct = getattr(config, section)
    return getattr(value, name)
