"""`[connectors]`: a table for each venue of the registry, by the Struct in which that venue declares its settings."""

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
    """The settings of all venues, each as the field of its name."""

    def of(self, venue: Venue[Settings]) -> Settings:
        """The settings of one."""
        settings: Settings = getattr(self, venue.name)
        return settings


if TYPE_CHECKING:
    Connectors = VenueTables
else:
    # Only the registry knows which fields there are.
    Connectors = msgspec.defstruct(
        "Connectors",
        [(venue.name, venue.settings, venue.settings()) for venue in VENUES.values()],
        bases=(VenueTables,),
        frozen=True,
        module=__name__,
    )


def secrets() -> dict[str, tuple[str, str, str]]:
    """The secrets that venues want, each by the name `VENUE_KEY`: the section, table and key where it belongs."""
    return {
        f"{venue.name}_{key}": ("connectors", venue.name, key)
        for venue in VENUES.values()
        for key in _marked(venue.settings, "secret")
    }


def url_keys(venue: Venue[Any]) -> dict[str, str]:
    """The keys of a venue that hold a URL, and of which scheme: `http` or `ws`, each with or without TLS."""
    return _marked(venue.settings, "url")


def refused(connectors: VenueTables) -> Iterator[tuple[str, str, str]]:
    """Key, value seen and what is allowed, for all that the types cannot say."""
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
    """The keys whose `Meta` has such an `extra`, and what it says."""
    types = {field.name: inspect.type_info(field.type) for field in msgspec.structs.fields(settings)}
    extras = {key: info.extra or {} for key, info in types.items() if isinstance(info, inspect.Metadata)}
    return {key: extra[mark] for key, extra in extras.items() if mark in extra}


_HIDDEN: Final = re.compile("[@?#]")
"""What stands behind or before these in a URL may be a secret."""


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
