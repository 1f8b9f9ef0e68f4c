"""The composition root: builds every component, starts them in order, and stops them in order.

    venue ── connector ──┐
    venue ── connector ──┤  memory channel        tape       sockets
    venue ── connector ──┴────────────────► hub ──► ▒▒▒▒ ──► clients
             (supervised)   (bounded: a busy hub            (front door lets them in,
                             slows the venues' links)        a session serves each)

Two halves, each in a file of `daemon.composition`: one takes data in and makes the tape, one serves clients from it, in
this process, or in several others (`daemon.workers`). Only these files know the concrete classes. The root nursery owns
everything: a failure of the hub or the front door ends the process, which systemd restarts; a failure of a connector
does not (see `daemon.ingest.supervisor`), nor does one of a worker.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import ssl
from collections.abc import Callable, Sequence
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Final

import trio

from connectors.base import leaves
from connectors.venues.registry import VENUES
from daemon.clustered import ClusterDaemon
from daemon.composition.ingesting import Ingesting, connectors
from daemon.composition.reloading import Crews, Reloading
from daemon.composition.serving import Log, Remarks, Serving
from daemon.config.load import Config
from daemon.front import certificate
from daemon.front.guarded import Mark
from daemon.front.limits import FILES_BESIDE_CLIENTS
from daemon.front.listening import base_urls, open_groups, passed_listeners, raise_descriptor_limit
from daemon.health.board import Board
from daemon.health.status_line import publish_status
from daemon.host.clock import WallClock
from daemon.host.garbage import Garbage
from daemon.host.systemd import Notifier
from daemon.ingest.inbox import Turn
from daemon.publish.bus import Bus
from daemon.publish.sequencer import known_topics
from daemon.replay.player import Player
from daemon.sessions.canary import Canary
from daemon.tape.archive import Archive
from daemon.tape.ledger import Ledger
from daemon.tape.tape import CANARY, Tape
from daemon.workers.worker import WorkerError
from daemon.workers.workers import Workers
from protocol.messages import ServerInfo

STDIN: Final = 0

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
    if config.cluster.url and player is None:
        return await _serve(ClusterDaemon(config, reread, mark, guarded=guarded), announce)
    daemon = Daemon(config, archive, reread, mark, guarded=guarded, player=player)
    try:
        return await _serve(daemon, announce)
    finally:
        if daemon.ingesting.recording is not None:
            await daemon.ingesting.recording.recorder.close()
        if archive is not None:
            await archive.close()


def tried(config: Config) -> list[str]:
    """Make of a configuration what `serve` makes of it before it opens anything. Returns warnings, a sentence each.

    Raises:
        ConfigError: a venue cannot use one of its channels.
        OSError: the certificate or key cannot be used, see `daemon.front.certificate`.
    """
    for venue in VENUES:
        connectors(venue, config)
    return certificate.warnings(certificate.tls_context(config.server), config.server)


async def _serve(daemon: Daemon | ClusterDaemon, announce: Callable[[Sequence[str]], None]) -> int:
    config = daemon.config
    for warning in config.warnings:
        _log.warning("%s", warning)
    for way in config.ways:
        _log.info("%s", way)
    had_terminal = os.isatty(STDIN)
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        clients, backlog = config.limits.clients, config.server.backlog
        files = raise_descriptor_limit(clients + FILES_BESIDE_CLIENTS)
        passed = passed_listeners(os.environ)
        groups = [passed] if passed else await open_groups(config.server, daemon.processes)
        _log.info("room for %d clients: %d open files are allowed, %d connections may wait", clients, files, backlog)
        failed = stopping = False
        try:
            async with trio.open_nursery() as root:
                await daemon.start(root, *groups)
                announce(base_urls(groups[0], secure=bool(config.server.certificate)))
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
        except* WorkerError as error:
            for leaf in leaves(error):
                _log.error("the daemon cannot start: %s", leaf)
            failed = True
        except* Exception:  # the hub or the front door: without them there is no daemon
            _log.exception("the daemon failed")
            failed = True
        finally:
            daemon.notifier.close()
    return 1 if failed else 0


class Daemon:
    """All components of a daemon, built but not yet running."""

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
        self.config = config
        self.archive = archive
        self._mark = Mark("") if mark is None else mark
        self.clock = WallClock() if player is None else player.clock
        self.notifier = Notifier.from_environment(os.environ)
        self.board = Board(config.catalogue(), self.clock.now_ms())
        if archive is None:
            self.tape, self.ledger = Tape(config.tape.entries, config.tape.bytes), Ledger()
            now_ms = self.clock.now_ms()
            self.ledger.record("restart", "", now_ms, now_ms, reason="the daemon started: its tape begins here")
        else:
            self.tape, self.ledger = archive.tape, archive.ledger
        log = Log(self.tape, self.board, self.ledger, self.clock, Bus())
        self._hurry: Callable[[], None] = _nothing
        self._reloading = Reloading(config, reread, self._apply, clock=self.clock, notifier=self.notifier)
        self.ingesting = Ingesting(config, log, hurry=lambda: self._hurry(), player=player)
        info = ServerInfo("tickerd", metadata.version("tickerd"), socket.gethostname())
        remarks = Remarks(
            unstored=lambda: "" if archive is None else archive.trouble,
            not_reloaded=lambda: self._reloading.told.trouble,
            unrecorded=self.ingesting.unrecorded,
            unreached=lambda: self.ingesting.fleet.outage.words,
        )
        broadcast, past = self.ingesting.sequencer.broadcast_test, self.ingesting.past
        self.server: Serving | Workers
        # A recording is played by its own clock, which is this process's.
        self.processes = config.server.worker_count if player is None else 1
        if self.processes > 1:
            self.server = Workers(
                config,
                log,
                info,
                broadcast=broadcast,
                past=past,
                remarks=remarks,
                guarded=guarded,
                send_canary=self._send_canary,
            )
            self.ingesting.sequencer.held_s = self.server.held_s
        else:
            self.server = Serving(
                config,
                log,
                info,
                broadcast=broadcast,
                past=past,
                remarks=remarks,
                guarded=guarded,
                replay=None if player is None else player.info,
            )
        self.server.metrics.include(
            lambda samples: self.board.measure(samples, self.clock.now_ms()),
            self.ingesting.measure,
            self.tape.measure,
            self.server.measure,
            lambda samples: self.ledger.measure(samples, self.clock.now_ms()),
            self._reloading.told.measure,
        )
        if archive is not None:
            self.server.metrics.include(archive.measure)

    async def start(
        self, root: trio.Nursery, listeners: list[trio.SocketListener], *others: list[trio.SocketListener]
    ) -> None:
        """Start everything in the root nursery; returns when clients are let in and the connectors run.

        `listeners` are those of the process that serves clients, or of all workers; with `others`, of the first worker,
        and `others` of each further one.
        """
        if self.archive is not None:
            await root.start(self.archive.run)
        await self.ingesting.start(root)
        server = self.server
        if isinstance(server, Workers):
            await server.start(root, [listeners, *others])
        else:
            await server.start(root, listeners)
        server.warn_if_exposed()
        await self.ingesting.start_connectors(root)
        await self._remember()
        root.start_soon(self._reloading.run)
        await root.start(
            publish_status,
            self.notifier,
            lambda: server.clients,
            self.board.states,
            lambda: self._reloading.told.words,
        )
        if isinstance(server, Workers):
            self._hurry = server.hurry
            await root.start(server.watch, self.notifier)
        elif self.notifier.watchdog_s is not None:
            canary = Canary(self.ingesting.send_canary, server.hub, server.front_door, listeners)
            self._hurry = canary.hurry
            await root.start(canary.run, self.notifier, self.notifier.watchdog_s)
        await root.start(Garbage().run)

    async def _send_canary(self, payload: bytes, sent: Callable[[], None]) -> None:
        """Put it onto the tape, in order with what the connectors send; then call `sent`, in the same turn."""

        def act() -> None:
            self.ingesting.sequencer.tell(CANARY, payload)
            sent()

        await self.ingesting.inbox.send(Turn(act))

    @property
    def serving(self) -> Serving:
        """The half that serves clients, where this process has it: there are no workers."""
        if isinstance(self.server, Workers):
            raise AssertionError("clients are served by workers")
        return self.server

    @property
    def reloads(self) -> bool:
        """Whether the configuration can be read again."""
        return bool(self._reloading)

    async def _remember(self) -> None:
        """Remember, over a restart, whether a token is needed."""
        await trio.to_thread.run_sync(partial(self._mark.keep, guarded=self.server.guarded))

    def ask_to_reload(self) -> None:
        """Read the configuration again soon."""
        self._reloading.ask()

    async def _apply(self, config: Config, tls: ssl.SSLContext | None, crews: Crews) -> None:
        await self.ingesting.reload(config, crews, partial(self._bring_into_force, config, tls))
        await self._remember()

    def _bring_into_force(self, config: Config, tls: ssl.SSLContext | None) -> None:
        self.config = config
        self.server.adopt(config, tls)
        logging.getLogger().setLevel(config.log.level.upper())
        self.server.warn_if_exposed()

    async def stop(self, root: trio.CancelScope) -> None:
        """Stop in order, within the grace period, and then end everything.

        First let no new clients in, then end the connectors, send the rest of the tape, then `goodbye` and 1001.
        """
        self.notifier.stopping()
        grace_s = self.config.limits.grace_s
        with trio.move_on_after(grace_s):
            self.server.stop_accepting()
            self._reloading.stop()
            self.ingesting.stop()
            await self.server.say_goodbye("the daemon is stopping", grace_s)
        root.cancel(reason="the daemon has stopped")


def _nothing() -> None:
    """There is no watchdog to feed."""


def _open_archive(config: Config) -> Archive:
    settings = config.tape
    archive = Archive.open(Path(settings.path), settings.entries, settings.bytes, WallClock())
    archive.tape.forget(known_topics(config.catalogue()))
    return archive
