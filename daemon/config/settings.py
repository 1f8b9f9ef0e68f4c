"""The sections of the configuration file, each key with its default. Units are in the names.

What types and ranges cannot say of a value is checked in `daemon.config.load`. A secret appears in no `repr`.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from connectors.base import Bytes, Count, Percent, Seconds
from daemon.config.channels import ChannelSection
from daemon.config.tokens import TokenSection
from daemon.config.venues import Connectors
from daemon.publish.sequencer import Passes


class Server(msgspec.Struct, frozen=True):
    """`[server]`: where to listen, and to whom."""

    host: Annotated[str | tuple[str, ...], Meta(description='"localhost", an IP address, or a list of them')] = (
        "localhost"
    )
    port: Annotated[int, Meta(ge=0, le=65535)] = 8000
    backlog: Annotated[int, Meta(ge=1, le=65535)] = 1024
    certificate: str = ""
    key: str = ""
    origins: tuple[str, ...] = ()
    trusted_proxies: tuple[str, ...] = ()

    @property
    def hosts(self) -> tuple[str, ...]:
        """The addresses to listen on, each once; `localhost` is the loopback of IPv4 and of IPv6."""
        given = (self.host,) if isinstance(self.host, str) else self.host
        loopback = ("127.0.0.1", "::1")
        each = (address for host in given for address in (loopback if host == "localhost" else (host,)))
        return tuple(dict.fromkeys(each))


class Limits(msgspec.Struct, frozen=True):
    """`[limits]`: what one client may do, and how many there may be."""

    message_bytes: Annotated[int, Meta(ge=128, le=2**24)] = 65_536
    commands_per_s: Annotated[float, Meta(gt=0, le=1_000_000)] = 50.0
    commands_burst: Count = 100
    channels_per_command: Count = 64
    clients: Count = 10_000
    clients_per_address: Count = 100
    handshake_s: Seconds = 10.0
    ping_every_s: Seconds = 20.0
    silent_after_s: Seconds = 40.0
    write_deadline_s: Seconds = 30.0
    errors_in_a_row: Count = 20
    head_bytes: Annotated[int, Meta(ge=1024, le=2**20)] = 16_384
    body_bytes: Annotated[int, Meta(ge=1024, le=2**24)] = 65_536
    keep_alive_s: Seconds = 75.0
    grace_s: Annotated[float, Meta(gt=0, le=3600)] = 10.0


class Tape(msgspec.Struct, frozen=True):
    """`[tape]`: how much history is kept, whichever bound is met first, and where; `path` "" is memory only."""

    entries: Count = 100_000
    bytes: Bytes = 67_108_864
    path: str = ""


class Supervisor(msgspec.Struct, frozen=True):
    """`[supervisor]`: how a connector that failed is started again."""

    backoff_base_s: Seconds = 1.0
    backoff_cap_s: Seconds = 60.0
    stable_after_s: Seconds = 60.0
    breaker_after: Count = 10
    breaker_s: Seconds = 120.0
    restarts: Count = 60
    restarts_per_s: Seconds = 300.0


class CrossCheck(msgspec.Struct, frozen=True):
    """`[crosscheck]`: what two venues may say of one instrument before it is remarked on."""

    band_percent: Percent = 1.0
    for_s: Seconds = 30.0
    frozen_s: Seconds = 60.0
    frozen_percent: Percent = 0.2


class Log(msgspec.Struct, frozen=True):
    """`[log]`."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "text", "json"] = "auto"


class File(msgspec.Struct, frozen=True):
    """The whole file as it is written."""

    server: Server = Server()
    limits: Limits = Limits()
    tape: Tape = Tape()
    hub: Passes = Passes()
    supervisor: Supervisor = Supervisor()
    connectors: Connectors = Connectors()
    channels: dict[str, ChannelSection] = {}
    tokens: dict[str, TokenSection] = {}
    crosscheck: CrossCheck = CrossCheck()
    log: Log = Log()
