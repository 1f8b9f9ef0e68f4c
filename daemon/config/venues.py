"""`[connectors]`: a table for each venue of the registry, defined by the venue's own settings Struct."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import msgspec
from msgspec import inspect

from connectors.base import FROM_ENVIRONMENT, VenueSettings
from connectors.network import trust
from connectors.network.environment import proxy_of
from connectors.network.proxy import ALLOWED, parse_proxy, shown_proxy
from connectors.venues.registry import VENUES, Settings, Venue
from daemon.config.reader import Problems, shown


class VenueTables(msgspec.Struct, frozen=True):
    """The settings of all venues; each field has its venue's name. Those that are derived have nothing to be told."""

    def of(self, venue: Venue[Settings]) -> Settings:
        """The settings of one venue."""
        if venue.is_derived:
            return venue.settings()
        settings: Settings = getattr(self, venue.name)
        return settings


_TOLD: Final = tuple(venue for venue in VENUES.values() if not venue.is_derived)
"""Those that have a table."""

if TYPE_CHECKING:
    Connectors = VenueTables
else:
    # Only the registry knows the fields.
    Connectors = msgspec.defstruct(
        "Connectors",
        [(venue.name, venue.settings, venue.settings()) for venue in _TOLD],
        bases=(VenueTables,),
        frozen=True,
        module=__name__,
    )


def secrets() -> dict[str, tuple[str, str, str]]:
    """The venues' own secrets by the name `VENUE_KEY`: section, table and key of each."""
    return {name: path for name, path in _paths("secret").items() if name not in proxies()}


def proxies() -> dict[str, tuple[str, str, str]]:
    """The proxies on the way to the venues, which may hold a password, in the same form."""
    return _paths("proxy")


def _paths(mark: str) -> dict[str, tuple[str, str, str]]:
    return {
        f"{venue.name}_{key}": ("connectors", venue.name, key)
        for venue in _TOLD
        for key in _marked(venue.settings, mark)
    }


def url_keys(venue: Venue[Any]) -> dict[str, str]:
    """The keys of a venue that hold a URL, and the scheme of each: `http` or `ws`, with or without TLS."""
    return _marked(venue.settings, "url")


def refused(connectors: VenueTables) -> Iterator[tuple[str, str, str]]:
    """Key, value seen and what is allowed, for rules beyond types and ranges."""
    for venue in _TOLD:
        settings: VenueSettings = connectors.of(venue)
        table = f"connectors.{venue.name}"
        for key, scheme in url_keys(venue).items():
            yield from _refused_url(f"{table}.{key}", getattr(settings, key), scheme)
        if settings.proxy not in ("", FROM_ENVIRONMENT) and not _is_proxy(settings.proxy):
            yield f"{table}.proxy", shown_proxy(settings.proxy), ALLOWED
        # What is not used may be half there: a key whose plan is not said is no reason not to start.
        for key, allowed in settings.refused() if settings.enabled else ():
            value = getattr(settings, key)
            hidden = value and f"{venue.name}_{key}" in secrets()
            yield f"{table}.{key}", "a secret that is not shown" if hidden else shown(value), allowed


def settled(
    connectors: VenueTables, called: AbstractSet[str], environ: Mapping[str, str], problems: Problems
) -> tuple[VenueTables, list[str]]:
    """The same with each venue's proxy looked up in the environment, and a sentence about each venue that has one.

    `called` are the venues that have channels; what the environment says is nothing to the others. It is also here that
    the environment's certificates are looked at, if anything is to be trusted by them.
    """
    found: dict[str, VenueSettings] = {}
    said: list[str] = []
    secure = False
    for venue in _TOLD:
        settings: VenueSettings = connectors.of(venue)
        if venue.name not in called or problems.concern(f"connectors.{venue.name}"):
            continue
        proxy, origin = settings.proxy, f"connectors.{venue.name}.proxy"
        if proxy == FROM_ENVIRONMENT:
            proxy, origin = proxy_of(settings.address, environ) or ("", "")
            if proxy and not _is_proxy(proxy):
                problems.value(origin, shown_proxy(proxy), ALLOWED)
                continue
            if proxy:
                found[venue.name] = msgspec.structs.replace(settings, proxy=proxy)
        secure = secure or settings.address.lower().startswith(("https:", "wss:")) or proxy.lower().startswith("https:")
        if proxy:
            said.append(f"{venue.title} is reached through the proxy {parse_proxy(proxy)} ({origin})")
    for variable, seen, allowed in trust.refused(environ) if secure else ():
        problems.value(variable, shown(seen), allowed)
    return msgspec.structs.replace(connectors, **found), said


def _is_proxy(url: str) -> bool:
    try:
        parse_proxy(url)
    except ValueError:
        return False
    return True


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
