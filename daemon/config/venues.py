"""`[connectors]`: a table for each venue of the registry, defined by the venue's own settings Struct."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import msgspec
from msgspec import inspect

from connectors.base import VenueSettings
from connectors.venues.registry import VENUES, Settings, Venue
from daemon.config.reader import shown


class VenueTables(msgspec.Struct, frozen=True):
    """The settings of all venues; each field has its venue's name."""

    def of(self, venue: Venue[Settings]) -> Settings:
        """The settings of one venue."""
        settings: Settings = getattr(self, venue.name)
        return settings


if TYPE_CHECKING:
    Connectors = VenueTables
else:
    # Only the registry knows the fields.
    Connectors = msgspec.defstruct(
        "Connectors",
        [(venue.name, venue.settings, venue.settings()) for venue in VENUES.values()],
        bases=(VenueTables,),
        frozen=True,
        module=__name__,
    )


def secrets() -> dict[str, tuple[str, str, str]]:
    """The venues' secrets by the name `VENUE_KEY`: section, table and key of each."""
    return {
        f"{venue.name}_{key}": ("connectors", venue.name, key)
        for venue in VENUES.values()
        for key in _marked(venue.settings, "secret")
    }


def url_keys(venue: Venue[Any]) -> dict[str, str]:
    """The keys of a venue that hold a URL, and the scheme of each: `http` or `ws`, with or without TLS."""
    return _marked(venue.settings, "url")


def refused(connectors: VenueTables) -> Iterator[tuple[str, str, str]]:
    """Key, value seen and what is allowed, for rules beyond types and ranges."""
    for venue in VENUES.values():
        settings: VenueSettings = connectors.of(venue)
        table = f"connectors.{venue.name}"
        for key, scheme in url_keys(venue).items():
            yield from _refused_url(f"{table}.{key}", getattr(settings, key), scheme)
        for key, allowed in settings.refused():
            value = getattr(settings, key)
            hidden = value and f"{venue.name}_{key}" in secrets()
            yield f"{table}.{key}", "a secret that is not shown" if hidden else shown(value), allowed


def _marked(settings: type[VenueSettings], mark: str) -> dict[str, Any]:
    """The keys whose `Meta` has that entry in its `extra`, and the entry's value."""
    types = {field.name: inspect.type_info(field.type) for field in msgspec.structs.fields(settings)}
    extras = {key: info.extra or {} for key, info in types.items() if isinstance(info, inspect.Metadata)}
    return {key: extra[mark] for key, extra in extras.items() if mark in extra}


_HIDDEN: Final = re.compile("[@?#]")
"""Text before or after these characters in a URL may be a secret."""


def _refused_url(key: str, url: str, scheme: str) -> Iterator[tuple[str, str, str]]:
    allowed = f"{scheme}:// or {scheme}s:// and a host, without user, query or fragment"
    if _HIDDEN.search(url):
        yield key, "a URL with user, query or fragment that is not shown", allowed
        return
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not re.fullmatch(rf"{scheme}s?://[!-~]+", url) or not host or port == 0:
        yield key, shown(url), allowed
