"""The composition root: builds every component, starts them in order, and stops them in order.

    venue ── connector ──┐
    venue ── connector ──┤  memory channel        tape       sockets
    venue ── connector ──┴────────────────► hub ──► ▒▒▒▒ ──► clients
             (supervised)   (bounded: a busy hub            (front door lets them in,
                             slows the venues' links)        a session serves each)

This is the only place that knows the concrete classes. The root nursery owns everything: the hub and the front door are
fail-fast (they end the process, and whoever started it starts it again), a connector is not (see `daemon.supervisor`).
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Final

import trio

from connectors import binance, coingecko, okx
from connectors.backoff import Backoff
from connectors.base import Connector
from connectors.feed import Feed
from daemon.admission import Admission, FrontDoorLimits
from daemon.admission import Terms as AdmissionTerms
from daemon.archive import Archive
from daemon.board import Board
from daemon.clock import WallClock
from daemon.config import Config
from daemon.crosscheck import Terms
from daemon.front_door import FrontDoor
from daemon.hub import Hub, Item, Pace
from daemon.ledger import Ledger
from daemon.listening import base_urls, open_listeners, raise_descriptor_limit, tls_context
from daemon.routes import PlainRoutes
from daemon.session import SessionLimits, Sessions
from daemon.supervisor import Intensity, Link, supervise
from daemon.tape import NOTICE, STATUS, Tape, Topic
from daemon.watch import Watch
from protocol.channels import WHOLE_MARKET, Channel
from protocol.messages import ServerInfo
from protocol.session import Limits

_RETRY_SPREAD_S: Final = 10.0
"""Over this time clients are asked to spread their return after a planned stop."""

_FILES_BESIDE_CLIENTS: Final = 256
"""Open files for everything that is not a client: listeners, venues, logs, connections being refused."""

_log: Final = logging.getLogger(__name__)


async def serve(config: Config, *, announce: Callable[[Sequence[str]], None]) -> int:
    """Run the daemon until SIGTERM or SIGINT; a second one ends it at once.

    Args:
        config: everything it is told.
        announce: called once with the base URLs, when clients are let in.

    Returns:
        The exit code: 0 after an orderly stop, 1 after a second signal or a failure of the core (which is logged).

    Raises:
        ArchiveError: the tape's file cannot be used.
        OSError: a listener cannot be opened; its `filename` names the address and port.
        ssl.SSLError: the certificate or key cannot be used.
    """
    archive = await trio.to_thread.run_sync(_open_archive, config) if config.tape.path else None
    try:
        return await _serve(config, archive, announce)
    finally:
        if archive is not None:
            await archive.close()


async def _serve(config: Config, archive: Archive | None, announce: Callable[[Sequence[str]], None]) -> int:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        daemon = Daemon(config, archive)
        clients, backlog = config.limits.clients, config.server.backlog
        files = raise_descriptor_limit(clients + _FILES_BESIDE_CLIENTS)
        listeners = await open_listeners(config.server)
        _log.info("room for %d clients: %d open files are allowed, %d connections may wait", clients, files, backlog)
        failed = False
        try:
            async with trio.open_nursery() as root:
                await daemon.start(root, listeners)
                announce(base_urls(listeners, secure=bool(config.server.certificate)))
                number = await anext(signals)
                _log.info("%s: stopping", signal.Signals(number).name)
                root.start_soon(daemon.stop, root.cancel_scope)
                await anext(signals)
                _log.warning("a second signal: ending at once")
                failed = True
                root.cancel_scope.cancel(reason="a second signal")
        except* Exception:  # the hub or the front door: without them there is no daemon
            _log.exception("the daemon failed")
            failed = True
    return 1 if failed else 0


class Daemon:
    """Everything, built and not yet running."""

    def __init__(self, config: Config, archive: Archive | None = None) -> None:
        self.config = config
        self.archive = archive
        self.clock = WallClock()
        catalogue = config.catalogue()
        self.board = Board(catalogue, self.clock.now_ms())
        pace = Pace(config.hub.batch_events, config.hub.rest_ratio, config.hub.rest_max_ms / 1000)
        if archive is None:
            self.tape, self.ledger = Tape(config.tape.entries, config.tape.bytes), Ledger()
            now_ms = self.clock.now_ms()
            self.ledger.record("restart", "", now_ms, now_ms, reason="the daemon started: its tape begins here")
        else:
            self.tape, self.ledger = archive.tape, archive.ledger
        self.hub = Hub(self.tape, self.board, catalogue, self.clock, pace, ledger=self.ledger)
        self.hub.room = None if archive is None else archive.room
        check = config.crosscheck
        terms = Terms(check.band_percent, check.for_s, check.frozen_s, check.frozen_percent)
        self.connectors = build_connectors(config)
        self.watch = Watch(self.hub, terms, self._unreadable)
        self._inbox, self._outbox = trio.open_memory_channel[Item](config.hub.inbox_batches)
        server = ServerInfo("tickerd", metadata.version("tickerd"))
        self.sessions = Sessions(self.hub, _session_limits(config), server)
        routes = PlainRoutes(
            server=server,
            catalogue=lambda: self.hub.catalogue,
            tape=self.tape,
            hub=self.hub,
            board=self.board,
            ledger=self.ledger,
            accepting=lambda: self.front_door.accepting,
            clock=self.clock,
        )
        self.front_door = FrontDoor(
            admission=Admission(admission_terms(config)),
            tls=tls_context(config.server),
            routes=routes,
            upgrade=self.sessions.serve,
            clock=self.clock,
        )
        self._connectors = trio.CancelScope()

    async def start(self, root: trio.Nursery, listeners: list[trio.SocketListener]) -> None:
        """Start everything in the root nursery; returns when clients are let in and the connectors run."""
        if self.archive is not None:
            await root.start(self.archive.run)
        await root.start(self.hub.run, self._outbox)
        await root.start(self.hub.intervals.run)
        await root.start(self.sessions.run)
        await root.start(self.watch.run)
        await root.start(self.front_door.run, listeners)
        root.start_soon(self._run_connectors)

    async def _run_connectors(self) -> None:
        settings = self.config.supervisor
        intensity = Intensity(settings.restarts, settings.restarts_per_s)
        with self._connectors, self._inbox:
            async with trio.open_nursery() as nursery:
                for connector in self.connectors:
                    link = Link(self._inbox, self.clock)
                    backoff = Backoff(
                        settings.backoff_base_s,
                        settings.backoff_cap_s,
                        settings.stable_after_s,
                        settings.breaker_after,
                        settings.breaker_s,
                    )
                    nursery.start_soon(supervise, connector, link, backoff, intensity, name=connector.name)

    def _unreadable(self) -> dict[str, int]:
        """By connector: how many of its venue's frames could not be read."""
        feeds = [connector for connector in self.connectors if isinstance(connector, Feed)]
        return {feed.name: feed.statistics().unreadable for feed in feeds}

    async def stop(self, root: trio.CancelScope) -> None:
        """Stop in order, within the grace period, and then end everything.

        Not ready, and no new clients; the connectors; what is on the tape to the clients; `goodbye` and 1001.
        """
        grace_s = self.config.limits.grace_s
        with trio.move_on_after(grace_s):
            self.front_door.stop_accepting()
            self._connectors.cancel(reason="the daemon is stopping")
            await self.sessions.say_goodbye("the daemon is stopping", grace_s * 0.9, _RETRY_SPREAD_S)
        root.cancel(reason="the daemon has stopped")


def _open_archive(config: Config) -> Archive:
    settings, catalogue = config.tape, config.catalogue()

    def known(topic: Topic) -> bool:
        channel = catalogue.get(topic[0])
        return topic == NOTICE or (channel is not None and topic[1] in (*channel.instruments, WHOLE_MARKET, STATUS))

    archive = Archive.open(Path(settings.path), settings.entries, settings.bytes, WallClock())
    archive.tape.forget(known)
    return archive


def build_connectors(config: Config) -> list[Connector]:
    """Every connector that the configured channels need."""
    user_agent = f"tickerd/{metadata.version('tickerd')}"
    venues = config.connectors
    return [
        *binance.build(
            _of("binance", config),
            base_url=venues.binance.base_url,
            levels=venues.binance.levels,
            timeout_s=venues.binance.timeout_s,
            user_agent=user_agent,
        ),
        *okx.build(
            _of("okx", config),
            url=venues.okx.url,
            silence_s=venues.okx.silence_s,
            timeout_s=venues.okx.timeout_s,
            rotate_after_s=venues.okx.rotate_after_s,
            user_agent=user_agent,
        ),
        *coingecko.build(
            _of("coingecko", config),
            base_url=venues.coingecko.base_url,
            api_key=venues.coingecko.api_key,
            plan=venues.coingecko.plan,
            timeout_s=venues.coingecko.timeout_s,
            user_agent=user_agent,
        ),
    ]


def _of(exchange: str, config: Config) -> list[Channel]:
    return [channel for channel in config.channels if channel.exchange == exchange]


def _session_limits(config: Config) -> SessionLimits:
    limits = config.limits
    return SessionLimits(
        message_bytes=limits.message_bytes,
        handshake_s=limits.handshake_s,
        ping_every_s=limits.ping_every_s,
        silent_after_s=limits.silent_after_s,
        write_deadline_s=limits.write_deadline_s,
        commands=Limits(
            commands_per_s=limits.commands_per_s,
            commands_burst=limits.commands_burst,
            channels_per_command=limits.channels_per_command,
            errors_in_a_row=limits.errors_in_a_row,
        ),
    )


def admission_terms(config: Config) -> AdmissionTerms:
    """On what terms clients are let in."""
    return AdmissionTerms(_front_door_limits(config), frozenset(config.server.origins), config.server.trusted_proxies)


def _front_door_limits(config: Config) -> FrontDoorLimits:
    limits = config.limits
    return FrontDoorLimits(
        head_bytes=limits.head_bytes,
        body_bytes=limits.body_bytes,
        handshake_s=limits.handshake_s,
        keep_alive_s=limits.keep_alive_s,
        write_s=limits.write_deadline_s,
        connections=limits.clients + _FILES_BESIDE_CLIENTS // 2,
        connections_per_address=limits.clients_per_address * 2,
        clients=limits.clients,
        clients_per_address=limits.clients_per_address,
    )
