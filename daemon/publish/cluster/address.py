"""The engine's URL: which forms there are, and what each of them means. Pure.

    redis://HOST[:PORT][/DB]                          one server; valkey:// is the same
    rediss://HOST[:PORT][/DB]                         by TLS; valkeys:// is the same
    redis+sentinel://HOST[:PORT],HOST[:PORT].../SERVICE[/DB]    by Sentinel; rediss+sentinel:// by TLS
    redis+cluster://HOST[:PORT],HOST[:PORT]...        Redis Cluster or Valkey Cluster; rediss+cluster:// by TLS

`USER@` may stand before the host; a password may not: see `Address`.
"""

from __future__ import annotations

import re
from typing import Final, Literal, TypeAlias

import msgspec

Kind: TypeAlias = Literal["single", "sentinel", "cluster"]

FORMS: Final = (
    "redis://HOST:PORT/DB, rediss:// by TLS, valkey:// and valkeys:// likewise, "
    "redis+sentinel://HOST:PORT,HOST:PORT/SERVICE or redis+cluster://HOST:PORT,HOST:PORT"
)

_URL: Final = re.compile(r"(?i)(?P<engine>redis|valkey)(?P<tls>s?)(?:\+(?P<kind>sentinel|cluster))?://(?P<rest>.+)")
_HOST: Final = re.compile(r"(?:\[(?P<v6>[0-9a-fA-F:.]+)\]|(?P<name>[A-Za-z0-9._-]+))(?::(?P<port>\d{1,5}))?")
_PORT: Final = {"single": 6379, "sentinel": 26379, "cluster": 6379}


class AddressError(ValueError):
    """A URL that names no engine. It never contains a password."""


class Address(msgspec.Struct, frozen=True):
    """Where the engine is.

    Attributes:
        kind: one server, several behind Sentinel, or a cluster.
        hosts: name and port of each; of Sentinel these are the sentinels.
        tls: whether the connections are encrypted, and the server's certificate is looked at.
        user: its name in the engine; "" for the default user.
        service: what Sentinel calls it.
        database: its number.
    """

    kind: Kind
    hosts: tuple[tuple[str, int], ...]
    tls: bool = False
    user: str = ""
    service: str = ""
    database: int = 0

    @property
    def words(self) -> str:
        """The address for logs and answers."""
        hosts = ", ".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.hosts)
        by = {"single": "", "sentinel": f" (service {self.service}, by Sentinel)", "cluster": " (a cluster)"}
        return f"{hosts}{by[self.kind]}{' by TLS' if self.tls else ''}"


def parse(url: str) -> Address:
    """Read a URL. Raises: AddressError, one sentence that says what is allowed."""
    found = _URL.fullmatch(url)
    if found is None:
        raise AddressError(FORMS)
    kind: Kind = "single"
    match (found["kind"] or "").lower():
        case "sentinel":
            kind = "sentinel"
        case "cluster":
            kind = "cluster"
    authority, _, path = found["rest"].partition("/")
    user, at, hosts = authority.rpartition("@")
    if ":" in user:
        raise AddressError(
            "no password in it; put it into the credential cluster_password or TICKERD_CLUSTER__PASSWORD"
        )
    if at and re.fullmatch(r"[!-~]{1,128}", user) is None:
        raise AddressError(f"a user's name before the @; {FORMS}")
    parts = [part for part in path.split("/") if part]
    service = ""
    if kind == "sentinel":
        if not parts or re.fullmatch(r"[A-Za-z0-9._-]{1,128}", parts[0]) is None:
            raise AddressError(f"the name of the service behind the sentinels; {FORMS}")
        service = parts.pop(0)
    database = parts.pop(0) if parts else "0"
    if parts or re.fullmatch(r"\d{1,5}", database) is None:
        raise AddressError(f"at most the number of a database at the end; {FORMS}")
    if kind == "cluster" and int(database):
        raise AddressError(f"no database's number: a cluster has only one; {FORMS}")
    addresses = tuple(_host(each, kind) for each in hosts.split(","))
    if kind == "single" and len(addresses) > 1:
        raise AddressError(f"one host; several are for redis+sentinel:// and redis+cluster://; {FORMS}")
    return Address(kind, addresses, bool(found["tls"]), user, service, int(database))


def _host(text: str, kind: Kind) -> tuple[str, int]:
    found = _HOST.fullmatch(text)
    if found is None or not 0 < (port := int(found["port"] or _PORT[kind])) < 65536:
        raise AddressError(f"a host, and a port from 1 to 65535; {FORMS}")
    return found["v6"] or found["name"], port
