"""A new configuration for a running daemon: which venues it changes, and which keys need a restart.

The daemon itself (`daemon.app`) applies the changes, in the order that its components need.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec

from connectors.venues.registry import VENUES
from daemon.config.load import Config
from daemon.publish.cluster.settings import Cluster

_FIXED: Final = (
    *("server.host", "server.port", "server.backlog", "server.workers"),
    *("tape.entries", "tape.bytes", "tape.path"),
    *("record.path", "record.keep_s", "record.keep_bytes", "record.buffer_bytes"),
    *("hub.inbox_batches", "log.format"),
    *(f"cluster.{key}" for key in Cluster.__struct_fields__),
)
"""Keys that are read only at the start."""


def changed_venues(old: Config, new: Config) -> Iterator[str]:
    """The venues whose connectors must be replaced: their settings or channels have changed."""
    for name, venue in VENUES.items():
        if venue.is_derived:
            continue  # it has no connector
        before, after = (
            (config.connectors.of(venue), [channel for channel in config.channels if channel.exchange == name])
            for config in (old, new)
        )
        if before != after or old.check_instruments != new.check_instruments:
            yield name


def fixed_keys(old: Config, new: Config) -> list[str]:
    """The changed keys that only a restart can apply."""
    return [key for key in _FIXED if _value(old, key) != _value(new, key)]


def _value(config: Config, key: str) -> object:
    section, name = key.split(".")
    value: msgspec.Struct = getattr(config, section)
    return getattr(value, name)
