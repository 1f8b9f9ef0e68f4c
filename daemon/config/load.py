"""The configuration: a TOML file and the environment make one frozen `Config`.

Each section is declared by the component that uses it; `daemon.config.settings` lists them. A key of the file is
`[section] key`; the environment overrides it by `TICKERD_SECTION__KEY`. Units are in the names. All mistakes are found
at once, each with the key, the value seen and what is allowed. Secrets appear neither in errors nor in a `repr`.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, TypeAlias

import msgspec

from connectors.capture.recorder import RecordSettings
from connectors.venues.registry import VENUES
from daemon.config import credentials, tokens, venues
from daemon.config.channels import channels, settled, unfounded
from daemon.config.neighbours import neighbours, passed_over
from daemon.config.presets import preset_channels
from daemon.config.reader import Problems, overlay, overlay_options, parse_toml, read, shown
from daemon.config.settings import File
from daemon.config.tokens import TokenSection
from daemon.config.venues import Connectors
from daemon.front import access, admission, paths
from daemon.front.limits import Limits
from daemon.front.listening import ServerSettings
from daemon.health.crosscheck import Tolerances
from daemon.host.logs import LogSettings
from daemon.host.text import decoded
from daemon.ingest.fleet import RestartSettings
from daemon.publish.cluster.address import AddressError
from daemon.publish.cluster.address import parse as parse_address
from daemon.publish.cluster.settings import Cluster
from daemon.publish.sequencer import Passes
from daemon.tape.tape import TapeSettings
from protocol.channels import Catalogue, Channel

IGNORED_VARIABLES: Final = frozenset(
    {
        "TICKERD_TOKEN",
        "TICKERD_RECORDED",
        "TICKERD_SEED",
        "TICKERD_REQUIRE_SEED",
        "TICKERD_REQUIRE_MOUNT",
        "TICKERD_REQUIRE_NODE",
        "TICKERD_REQUIRE_TSC",
        "TICKERD_REQUIRE_BROWSER",
        "TICKERD_REQUIRE_SYSTEMD",
        "TICKERD_REQUIRE_PROXIES",
        "TICKERD_REQUIRE_REDIS",
        "TICKERD_FUZZ_S",
        "TICKERD_FUZZ_SEED",
    }
)
"""Not settings of the daemon: the token of the commands that talk to a daemon; and for the tests, where recorded
payloads and the user's text are, which tools must be present, and how long and from which seed to search for
failures."""

CADENCE_S: Final = 10.0
"""The default cadence of a scheduled channel."""


class ServingConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What serving clients needs of the configuration, beside the channels; a worker has no more of it.

    `has_tokens_table`: whether it has a table of tokens, even an empty one.
    """

    server: ServerSettings
    limits: Limits
    tape: TapeSettings
    hub: Passes
    tokens: dict[str, TokenSection]
    has_tokens_table: bool
    log: LogSettings
    simulated: bool

    def policy(self, *, guarded: bool = False) -> admission.Policy:
        """Which clients are let in, and how many; `guarded`: whether a token was needed until now."""
        given = tokens.grants(self.tokens)
        known = access.in_force(given, opened=self.server.open, declared=self.has_tokens_table, before=guarded)
        return admission.policy(self.server, self.limits, known)


class Config(ServingConfig, frozen=True, kw_only=True):
    """The whole configuration, checked.

    `channels`: the channels that are served, in order. `warnings`: what its reader should hear of though it can be
    used, a sentence each. `ways`: those about venues that are reached through a proxy.
    """

    record: RecordSettings
    cluster: Cluster
    supervisor: RestartSettings
    connectors: Connectors
    channels: tuple[Channel, ...]
    check_instruments: bool
    crosscheck: Tolerances
    warnings: tuple[str, ...] = ()
    ways: tuple[str, ...] = ()

    def catalogue(self) -> Catalogue:
        """The channels by name."""
        return Catalogue(self.channels)

    def serving(self) -> ServingConfig:
        """What serving clients needs of it."""
        return ServingConfig(**{name: getattr(self, name) for name in ServingConfig.__struct_fields__})


class ConfigError(Exception):
    """A configuration that cannot be used.

    Attributes:
        errors: one line each; a line about a key begins with it.
    """

    def __init__(self, errors: tuple[str, ...]) -> None:
        super().__init__("\n".join(errors))
        self.errors = errors


def load(path: Path | None, environ: Mapping[str, str], options: Mapping[str, object] | None = None) -> Config:
    """Read the file, if one is given, then systemd's credentials, the environment and options, which override it.

    `options`: values of keys, as `server.port`, that the command line gives by the key's last part, as `--port`.

    Raises:
        ConfigError: The file or a credential cannot be read, is not TOML, or has a value that is not allowed.
    """
    folder = environ.get(credentials.DIRECTORY, "")
    secrets = Path(folder) if folder else None
    if path is None:
        return parse("", environ, "the environment", secrets, options)
    try:
        text = decoded(path.read_bytes())
    except OSError as error:
        raise ConfigError((f"{path}: cannot be read: {error.strerror or error}",)) from None
    except ValueError as error:
        raise ConfigError((f"{path}: cannot be read: {error}",)) from None
    return parse(text, environ, str(path), secrets, options)


def parse(
    text: str,
    environ: Mapping[str, str],
    origin: str,
    secrets: Path | None = None,
    options: Mapping[str, object] | None = None,
) -> Config:
    """Make a configuration of TOML text, the folder of credentials if there is one, the environment and options.

    `origin` names the text in errors.

    Raises:
        ConfigError: The text is not TOML, or something in it or in the environment is not allowed.
    """
    try:
        tree = parse_toml(text)
    except ValueError as error:
        raise ConfigError((f"{origin}: {error}",)) from None
    problems = Problems()
    if secrets is not None:
        credentials.overlay(tree, secrets, problems)
    strange = neighbours(environ, File)
    overlay(File, tree, environ, problems, IGNORED_VARIABLES | {name.upper() for name in strange})
    overlay_options(tree, options or {}, problems)
    file = read(File, tree, problems)
    for key, seen, allowed in _refused(file):
        problems.value(key, seen, allowed)
    wanted = channels(preset_channels(file.catalogue.presets), file.channels, CADENCE_S, problems)
    enabled = [channel for channel in wanted if file.connectors.of(VENUES[channel.exchange]).enabled]
    served = tuple(settled(enabled))
    called = {channel.exchange for channel in served}
    connectors, ways = venues.settled(file.connectors, called, environ, problems)
    if not problems and not served:
        problems.plain("channels", "none is left to serve; allowed: at least one, with its connector enabled")
    if problems:
        raise ConfigError(problems.lines)
    sections = {name: getattr(file, name) for name in file.__struct_fields__ if name in Config.__struct_fields__}
    unused = () if secrets is None else credentials.unused(secrets, file)
    warnings = tuple(filter(None, [passed_over(strange), *unused, *unfounded(served), _idle_workers(file)]))
    made = {"channels": served, "connectors": connectors, "has_tokens_table": "tokens" in tree}
    made["check_instruments"] = file.catalogue.check_instruments
    made["simulated"] = file.catalogue.simulated
    return Config(**sections | made | {"warnings": warnings, "ways": tuple(ways)})


def _idle_workers(file: File) -> str:
    """That workers are wanted where they would have no clients; "" where they would."""
    if not file.cluster.url or file.cluster.serves or file.server.worker_count == 1:
        return ""
    return f'server.workers = {file.server.workers} has no effect: a node whose cluster.role is "ingest" has no clients'


_Refusal: TypeAlias = tuple[str, str, str]
"""Key, value seen, what is allowed."""


def _refused(file: File) -> Iterator[_Refusal]:
    """Rules beyond types and ranges."""
    yield from _refused_server(file.server)
    yield from file.catalogue.refused()
    yield from tokens.refused(file.tokens)
    limits, supervisor = file.limits, file.supervisor
    if limits.silent_after_s <= limits.ping_every_s:
        more = f"more than limits.ping_every_s ({limits.ping_every_s})"
        yield "limits.silent_after_s", shown(limits.silent_after_s), more
    if supervisor.backoff_cap_s < supervisor.backoff_base_s:
        least = f"at least supervisor.backoff_base_s ({supervisor.backoff_base_s})"
        yield "supervisor.backoff_cap_s", shown(supervisor.backoff_cap_s), least
    if file.tape.path and ("\0" in file.tape.path or not os.path.isdir(os.path.dirname(file.tape.path) or ".")):
        yield "tape.path", shown(file.tape.path), "the path of a file in a folder that exists"
    record = file.record.path
    if record and ("\0" in record or not os.path.isdir(record) or not os.access(record, os.W_OK | os.X_OK)):
        yield "record.path", shown(record), "the path of a folder that exists and can be written"
    yield from _refused_cluster(file)
    yield from venues.refused(file.connectors)


def _refused_cluster(file: File) -> Iterator[_Refusal]:
    cluster = file.cluster
    if not cluster.url:
        return
    try:
        parse_address(cluster.url)
    except AddressError as error:
        # It may hold a password.
        seen = shown(cluster.url) if "@" not in cluster.url else "a URL with an @"
        yield "cluster.url", seen, str(error)
    if file.tape.path:
        yield "tape.path", shown(file.tape.path), '"" in a cluster: the engine of [cluster] url keeps the tape'
    if file.record.path:
        allowed = '"" in a cluster: record at a daemon that is alone'
        yield "record.path", shown(file.record.path), allowed
    if cluster.ca and not os.path.isfile(cluster.ca):
        yield "cluster.ca", shown(cluster.ca), "the path of a file that exists"


def _refused_server(server: ServerSettings) -> Iterator[_Refusal]:
    if not server.hosts or not all(map(_is_listening_address, server.hosts)):
        yield "server.host", shown(server.host), '"localhost", an IP address ("::" for all), or a list of them'
    if server.prefix and paths.PATTERN.fullmatch(server.prefix) is None:
        yield "server.prefix", shown(server.prefix), '"" or a path, as /feed or /market/feed'
    if bool(server.certificate) != bool(server.key):
        missing = "server.certificate" if server.key else "server.key"
        yield missing, '""', "the path of a file; certificate and key go together"
    for name, path in (("server.certificate", server.certificate), ("server.key", server.key)):
        if path and not os.path.isfile(path):
            yield name, shown(path), "the path of a file that exists"
    for origin in server.origins:
        if origin not in ("*", "null") and not re.fullmatch(r"[a-z][a-z0-9+.-]*://[^\s/?#@]+", origin):
            yield (
                "server.origins",
                shown(origin),
                "SCHEME://HOST[:PORT], as https://example.org, null (pages opened as files), or * for any",
            )
    for name in server.names:
        if not _is_listening_address(name) and not re.fullmatch(r"(?i)[a-z0-9_]([a-z0-9._-]{0,251}[a-z0-9_])?", name):
            yield "server.names", shown(name), "a host's name or an IP address, without a port, as ticker.example.org"
    for proxy in server.trusted_proxies:
        try:
            ipaddress.ip_network(proxy, strict=False)
        except ValueError:
            yield "server.trusted_proxies", shown(proxy), "an address or a network, as 10.0.0.0/8"


def _is_listening_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
