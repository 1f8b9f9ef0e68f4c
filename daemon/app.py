"""The composition root: builds every component, starts them in order, and stops them in order.

    venue ── connector ──┐
    venue ── connector ──┤  memory channel        tape       sockets
    venue ── connector ──┴────────────────► hub ──► ▒▒▒▒ ──► clients
             (supervised)   (bounded: a busy hub            (front door lets them in,
                             slows the venues' links)        a session serves each)

Only this file knows the concrete classes. The root nursery owns everything: a failure of the hub or the front door ends
the process, which systemd restarts; a failure of a connector does not (see `daemon.ingest.supervisor`).
"""

from __future__ import annotations

import logging
import os
import signal
import ssl
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Final

import trio

from connectors.base import Connector
from connectors.poll.listing import InstrumentCheck
from connectors.venues.registry import VENUES
from daemon.config.changes import changed_venues, fixed_keys
from daemon.config.load import Config, ConfigError
from daemon.fanout.hub import Hub
from daemon.front import access, certificate
from daemon.front.admission import Admission
from daemon.front.front_door import FrontDoor
from daemon.front.guarded import Mark
from daemon.front.limits import FILES_BESIDE_CLIENTS
from daemon.front.listening import base_urls, open_listeners, passed_listeners, raise_descriptor_limit
from daemon.health.board import Board
from daemon.health.pauses import Pauses
from daemon.health.reloads import Reloads
from daemon.health.status_line import publish_status
from daemon.health.watch import Watch
from daemon.host.clock import WallClock
from daemon.host.garbage import Garbage
from daemon.host.systemd import Notifier
from daemon.ingest.fleet import Fleet
from daemon.ingest.inbox import Item, Turn
from daemon.publish.bus import Bus
from daemon.publish.recording import Recording
from daemon.publish.sequencer import Sequencer, known_topics
from daemon.replay.player import Player
from daemon.routes.metrics import Metrics
from daemon.routes.routes import PlainRoutes
from daemon.sessions.canary import Canary
from daemon.sessions.event_stream import EventStreams
from daemon.sessions.sessions import Sessions
from daemon.sessions.websocket import WebSockets
from daemon.tape.archive import Archive
from daemon.tape.ledger import Ledger
from daemon.tape.tape import Tape
from protocol.messages import ServerInfo

_RETRY_SPREAD_S: Final = 10.0
"""The longest time over which clients are asked to spread their return after a planned stop."""

USER_AGENT: Final = f"tickerd/{metadata.version('tickerd')}"
"""The user agent that venues see."""

STDIN: Final = 0

_LAST_ANSWERS_S: Final = 1.0
"""How long a stop waits, after the goodbyes, for the first requests of connections that came just before it."""

_log: Final = logging.getLogger(__name__)


async def serve(
    config: Config,
    *,
    announce: Callable[[Sequence[str]], None],
    reread: Callable[[], Config] | None = None,
    player: Player | None = None,
) -> int:
    """Run the daemon until SIGTERM or SIGINT; a second one ends it at once.

    Args:
        config: the whole configuration.
        announce: called once with the base URLs, when clients are let in.
        reread: reads the configuration again, in a thread, at SIGHUP; it may raise ConfigError. Without it, or if the
            signal means that the terminal of the process is gone, SIGHUP stops the daemon as SIGTERM does.
        player: plays a recording, instead of the venues.

    Returns:
        The exit code: 0 after an orderly stop, 1 after a second signal or a failure of the core (which is logged).

    Raises:
        ArchiveError: the tape's file cannot be used.
        ConfigError: a venue cannot use one of its channels.
        OSError: a listener cannot be opened; its `filename` names the address and port.
        ssl.SSLError: the certificate or key cannot be used.
    """
    archive = await trio.to_thread.run_sync(_open_archive, config) if config.tape.path else None
    mark = Mark(config.tape.path)
    guarded = await trio.to_thread.run_sync(mark.is_set)
    daemon = Daemon(config, archive, reread, mark, guarded=guarded, player=player)
    try:
        return await _serve(daemon, announce)
    finally:
        if daemon.recording is not None:
            await daemon.recording.recorder.close()
        if archive is not None:
            await archive.close()


def tried(config: Config) -> list[str]:
    """Make of a configuration what `serve` makes of it before it opens anything. Returns warnings, a sentence each.

    Raises:
        ConfigError: a venue cannot use one of its channels.
        OSError: the certificate or key cannot be used, see `daemon.front.certificate`.
    """
    for venue in VENUES:
        _connectors(venue, config)
    return certificate.warnings(certificate.tls_context(config.server), config.server)


async def _serve(daemon: Daemon, announce: Callable[[Sequence[str]], None]) -> int:
    config = daemon.config
    for warning in config.warnings:
        _log.warning("%s", warning)
    for way in config.ways:
        _log.info("%s", way)
    had_terminal = os.isatty(STDIN)
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        clients, backlog = config.limits.clients, config.server.backlog
        files = raise_descriptor_limit(clients + FILES_BESIDE_CLIENTS)
        listeners = passed_listeners(os.environ) or await open_listeners(config.server)
        _log.info("room for %d clients: %d open files are allowed, %d connections may wait", clients, files, backlog)
        failed = stopping = False
        try:
            async with trio.open_nursery() as root:
                await daemon.start(root, listeners)
                announce(base_urls(listeners, secure=bool(config.server.certificate)))
                daemon.notifier.ready()
                async for number in signals:
                    hung_up = number == signal.SIGHUP
                    if hung_up and daemon.reloads and os.isatty(STDIN) == had_terminal:
                        _log.info("SIGHUP: reading the configuration again")
                        daemon.ask_to_reload()
                    elif not stopping:
                        stopping = True
                        _log.info("%s: stopping", signal.Signals(number).name)
                        root.start_soon(daemon.stop, root.cancel_scope)
                    elif not hung_up:
                        _log.warning("a second signal: ending at once")
                        failed = True
                        root.cancel_scope.cancel(reason="a second signal")
        except* Exception:  # the hub or the front door: without them there is no daemon
            _log.exception("the daemon failed")
            failed = True
        finally:
            daemon.notifier.close()
    return 1 if failed else 0


class Daemon:
    """All components, built but not yet running."""

    def __init__(
        self,
        config: Config,
        archive: Archive | None = None,
        reread: Callable[[], Config] | None = None,
        mark: Mark | None = None,
        *,
        guarded: bool = False,
        player: Player | None = None,
    ) -> None:
        """Build it. `mark` remembers over a restart whether a token is needed; `guarded`: whether one was.

        With a `player` no venue is called: its recording is played, and all goes by its clock.
        """
        self.config = self._started_with = config
        self.archive = archive
        self._mark = Mark("") if mark is None else mark
        self.clock = WallClock() if player is None else player.clock
        self._player = player
        self.notifier = Notifier.from_environment(os.environ)
        catalogue = config.catalogue()
        self.board = Board(catalogue, self.clock.now_ms())
        if archive is None:
            self.tape, self.ledger = Tape(config.tape.entries, config.tape.bytes), Ledger()
            now_ms = self.clock.now_ms()
            self.ledger.record("restart", "", now_ms, now_ms, reason="the daemon started: its tape begins here")
        else:
            self.tape, self.ledger = archive.tape, archive.ledger
        bus = Bus()
        self.sequencer = Sequencer(self.tape, self.board, self.ledger, self.clock, bus, config.hub)
        self.hub = Hub(self.tape, self.ledger, self.clock)
        bus.add(self.hub)
        self._inbox, self._outbox = trio.open_memory_channel[Item](config.hub.inbox_batches)
        self.fleet = Fleet(self._inbox, self.clock)
        self.watch = Watch(
            board=self.board,
            newest=self.tape.payload,
            publish=self.sequencer.publish,
            tolerances=config.crosscheck,
            unreadable=self.fleet.unreadable,
            note_unreadable=self._note_unreadable,
        )
        self.pauses = Pauses(
            self.ledger,
            self.clock,
            anew=self.fleet.anew,
            aged=self.watch.aged,
            set_back=self._clock_was_set_back,
            hurry=lambda: self._hurry(),
        )
        server = ServerInfo("tickerd", metadata.version("tickerd"))
        self.recording = self._recording(server.version) if config.record.path else None
        metrics = Metrics(server.version)
        self.reloads_told = Reloads(self.clock.now_ms())
        admission = Admission(config.policy(guarded=guarded))
        self.sessions = Sessions(
            tape=self.tape,
            hub=self.hub,
            board=self.board,
            ledger=self.ledger,
            clock=self.clock,
            limits=config.limits,
            server=server,
            replay=None if player is None else player.info,
        )
        routes = PlainRoutes(
            server=server,
            catalogue=lambda: self.board.catalogue,
            tape=self.tape,
            clients=lambda: self.hub.statistics().subscribers,
            broadcast=self.sequencer.broadcast_test,
            admit_test=admission.rates.test,
            board=self.board,
            ledger=self.ledger,
            accepting=lambda: admission.accepting,
            clock=self.clock,
            needs_token=lambda: admission.policy.tokens is not None,
            unstored=lambda: "" if archive is None else archive.trouble,
            unrecorded=lambda: "" if self.recording is None else self.recording.trouble,
            not_reloaded=lambda: self.reloads_told.trouble,
            metrics=metrics.answer,
        )
        self.front_door = FrontDoor(
            admission=admission,
            tls=certificate.tls_context(config.server),
            routes=routes,
            upgrade=WebSockets(self.sessions).serve,
            clock=self.clock,
            events=EventStreams(self.sessions),
        )
        metrics.include(
            lambda samples: self.board.measure(samples, self.clock.now_ms()),
            self.fleet.measure,
            self.sequencer.measure,
            self.hub.measure,
            self.tape.measure,
            self.sessions.counts.measure,
            self.front_door.measure,
            lambda samples: self.ledger.measure(samples, self.clock.now_ms()),
            self.watch.measure,
            self.reloads_told.measure,
        )
        if archive is not None:
            metrics.include(archive.measure)
        if self.recording is not None:
            metrics.include(self.recording.recorder.measure)
        self._crews = {venue: _connectors(venue, config) for venue in VENUES if player is None}
        self._reread = reread
        self._hurry: Callable[[], None] = _nothing
        self._doorbell, self._rung = trio.open_memory_channel[None](1)
        self._reloading = trio.CancelScope()
        self._hosts: list[str] = []

    async def start(self, root: trio.Nursery, listeners: list[trio.SocketListener]) -> None:
        """Start everything in the root nursery; returns when clients are let in and the connectors run."""
        if self.archive is not None:
            await root.start(self.archive.run)
        await root.start(self.sequencer.run, self._outbox)
        await root.start(self.hub.run)
        await root.start(self.sessions.run)
        if self._player is None:
            await root.start(self.watch.run)
            await root.start(self.pauses.run)
        await root.start(self.front_door.run, listeners)
        await root.start(self.fleet.run)
        if self._player is not None:
            await root.start(self._player.run, self.sequencer, self.watch, self.board, self.ledger)
        if self.recording is not None:
            await root.start(self.recording.run)
        for venue, connectors in self._crews.items():
            self._record(venue, connectors, self.config)
            self.fleet.start(venue, connectors, self.config.supervisor)
        self._hosts = [listener.socket.getsockname()[0] for listener in listeners]
        self._warn_if_exposed()
        await self._remember()
        root.start_soon(self._reload_when_asked)
        await root.start(
            publish_status,
            self.notifier,
            lambda: self.hub.statistics().subscribers,
            self.board.states,
            lambda: self.reloads_told.words,
        )
        if self.notifier.watchdog_s is not None:
            canary = Canary(self.sequencer, self.hub, self._inbox, self.front_door, listeners)
            self._hurry = canary.hurry
            await root.start(canary.run, self.notifier, self.notifier.watchdog_s)
        await root.start(Garbage().run)

    def _recording(self, version: str) -> Recording:
        return Recording(
            self.config.record,
            board=self.board,
            ledger=self.ledger,
            clock=self.clock,
            publish=self.sequencer.publish,
            daemon=version,
        )

    def _record(self, venue: str, connectors: Sequence[Connector], config: Config) -> None:
        """Have what these connectors of a venue receive recorded, where that is wanted."""
        if self.recording is not None:
            # What the daemon itself makes of them belongs to them all.
            channels = [channel for channel in config.channels if channel.exchange == venue or channel.kind.made_of]
            self.recording.record(venue, connectors, channels, config.connectors.of(VENUES[venue]))

    def _note_unreadable(self, connector: str, count: int) -> None:
        reason = f"{connector} sent frames that are not what it documents; they were left out"
        self.ledger.note("unreadable", "", self.clock.now_ms(), count=count, reason=reason)

    def _clock_was_set_back(self, by_ms: int) -> None:
        self.ledger.clock_was_set_back(by_ms)
        self.board.clock_was_set_back(by_ms)
        self.watch.distrust(self.tape.head)

    @property
    def reloads(self) -> bool:
        """Whether the configuration can be read again."""
        return self._reread is not None

    def _warn_if_exposed(self) -> None:
        config, tokens = self.config, self.front_door.admission.policy.tokens
        encrypted = bool(config.server.certificate or config.server.trusted_proxies)
        for warning in access.exposure(self._hosts, tokens=tokens is not None, encrypted=encrypted):
            _log.warning("%s", warning)
        if tokens is not None and not tokens:
            _log.warning("%s", access.CLOSED)
        for warning in certificate.warnings(self.front_door.tls, config.server):
            _log.warning("%s", warning)

    async def _remember(self) -> None:
        """Remember, over a restart, whether a token is needed."""
        guarded = self.front_door.admission.policy.tokens is not None
        await trio.to_thread.run_sync(partial(self._mark.keep, guarded=guarded))

    def ask_to_reload(self) -> None:
        """Read the configuration again soon. Several requests during a reload cause only one more."""
        with suppress(trio.WouldBlock):
            self._doorbell.send_nowait(None)

    async def _reload_when_asked(self) -> None:
        with self._reloading:
            async for _ in self._rung:
                self.notifier.reloading()
                await self._reload()
                self.notifier.ready()

    async def _reload(self) -> None:
        """Read the configuration and apply it. An unusable one is reported, and changes nothing."""
        try:
            config, tls, crews = await trio.to_thread.run_sync(self._prepare, abandon_on_cancel=True)
        except ConfigError as error:
            for line in error.errors:
                _log.error("not reloaded, the old configuration stays: %s", line)
            self.reloads_told.failed("; ".join(error.errors))
            return
        except OSError as error:  # ssl.SSLError is one
            _log.error(
                "not reloaded, the old configuration stays: server.certificate, server.key: %s", error.strerror or error
            )
            self.reloads_told.failed(f"server.certificate, server.key: {error.strerror or error}")
            return
        fixed = fixed_keys(self._started_with, config)
        for key in fixed:
            _log.warning("%s has changed: that takes a restart", key)
        for way in config.ways if config.ways != self.config.ways else ():
            _log.info("%s", way)
        for venue in crews:
            await self.fleet.end(venue)
        done = trio.Event()

        def bring_into_force() -> None:
            self._bring_into_force(config, tls)
            done.set()

        # In order with the events: those of the connectors that have just ended are published first.
        await self._inbox.send(Turn(bring_into_force))
        await done.wait()
        await self._remember()
        for venue, connectors in crews.items():
            self._record(venue, connectors, config)
            self.fleet.start(venue, connectors, config.supervisor, why="the configuration was changed")
        self.reloads_told.succeeded(self.clock.now_ms(), fixed)
        _log.info("reloaded; venues that began anew: %s", ", ".join(crews) or "none")

    def _prepare(self) -> tuple[Config, ssl.SSLContext | None, dict[str, list[Connector]]]:
        """The part of a reload that may fail and reads files. Raises: ConfigError, OSError."""
        config = self.config if self._reread is None else self._reread()
        crews = {venue: _connectors(venue, config) for venue in changed_venues(self.config, config)}
        return config, certificate.tls_context(config.server), crews

    def _bring_into_force(self, config: Config, tls: ssl.SSLContext | None) -> None:
        if config.crosscheck != self.config.crosscheck:
            self.watch.compare(config.crosscheck)
        if config.channels != self.config.channels:
            self.sequencer.adopt(config.catalogue())
        self.config = config
        self.sequencer.passes = config.hub
        guarded = self.front_door.admission.policy.tokens is not None
        policy = self.front_door.admission.policy = config.policy(guarded=guarded)
        self.front_door.tls = tls
        self.sessions.change(config.limits)
        self.sessions.revoke(partial(access.ending, policy.tokens))
        raise_descriptor_limit(config.limits.clients + FILES_BESIDE_CLIENTS)
        logging.getLogger().setLevel(config.log.level.upper())
        self._warn_if_exposed()

    async def stop(self, root: trio.CancelScope) -> None:
        """Stop in order, within the grace period, and then end everything.

        First let no new clients in, then end the connectors, send the rest of the tape, then `goodbye` and 1001.
        """
        self.notifier.stopping()
        grace_s = self.config.limits.grace_s
        with trio.move_on_after(grace_s):
            self.front_door.stop_accepting()
            self._reloading.cancel(reason="the daemon is stopping")
            self.fleet.stop()
            await self.sessions.say_goodbye("the daemon is stopping", grace_s * 0.9, _RETRY_SPREAD_S)
            with trio.move_on_after(_LAST_ANSWERS_S):
                await self.front_door.wait_answered()
        root.cancel(reason="the daemon has stopped")


def _nothing() -> None:
    """There is no watchdog to feed."""


def _open_archive(config: Config) -> Archive:
    settings = config.tape
    archive = Archive.open(Path(settings.path), settings.entries, settings.bytes, WallClock())
    archive.tape.forget(known_topics(config.catalogue()))
    return archive


def _connectors(name: str, config: Config) -> list[Connector]:
    """What serves a venue's configured channels, and what checks their instruments; none if it has no channel.

    Raises:
        ConfigError: the venue cannot use one of them.
    """
    venue, settings = VENUES[name], config.connectors.of(VENUES[name])
    channels = [channel for channel in config.channels if channel.exchange == name]
    check = venue.check(channels, settings, USER_AGENT) if config.check_instruments else None
    try:
        made = venue.build(channels, settings, USER_AGENT)
    except ValueError as error:
        raise ConfigError((f"connectors.{name}: {error}",)) from None
    return [*made, *([] if check is None else [check])]


def checks(config: Config) -> dict[str, InstrumentCheck | None]:
    """By the title of each venue whose channels have instruments: what asks its list, if it has one to ask."""
    found: dict[str, InstrumentCheck | None] = {}
    for name, venue in VENUES.items():
        channels = [channel for channel in config.channels if channel.exchange == name and channel.instruments]
        if channels and not venue.is_derived:
            found[venue.title] = venue.check(channels, config.connectors.of(venue), USER_AGENT)
    return found
