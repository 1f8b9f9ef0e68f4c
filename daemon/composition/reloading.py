"""Reads the configuration again while the daemon runs. One that cannot be used is told, and changes nothing."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeAlias

import trio

from connectors.base import Connector
from daemon.composition.ingesting import connectors
from daemon.config.changes import changed_venues, fixed_keys
from daemon.config.load import Config, ConfigError
from daemon.front import certificate
from daemon.health.reloads import Reloads
from daemon.host.clock import WallClock
from daemon.host.systemd import Notifier

Crews: TypeAlias = dict[str, list[Connector]]
"""By venue, the connectors that take the place of those that run."""

_log = logging.getLogger(__name__)


class Reloading:
    """The reloads of one process.

    Attributes:
        told: how the last one went.
    """

    def __init__(
        self,
        started_with: Config,
        reread: Callable[[], Config] | None,
        apply: Callable[[Config, ssl.SSLContext | None, Crews], Awaitable[None]],
        *,
        clock: WallClock,
        notifier: Notifier,
    ) -> None:
        """Set up.

        `reread` reads the configuration, in a thread; without it there are no reloads. `apply` brings it into force.
        """
        self.told = Reloads(clock.now_ms())
        self._config = self._started_with = started_with
        self._reread = reread
        self._apply = apply
        self._clock = clock
        self._notifier = notifier
        self._doorbell, self._rung = trio.open_memory_channel[None](1)
        self._scope = trio.CancelScope()

    def __bool__(self) -> bool:
        """Whether the configuration can be read again."""
        return self._reread is not None

    def ask(self) -> None:
        """Read the configuration again soon. Several requests during a reload cause only one more."""
        with suppress(trio.WouldBlock):
            self._doorbell.send_nowait(None)

    def stop(self) -> None:
        """The daemon is stopping: nothing is reloaded any more."""
        self._scope.cancel(reason="the daemon is stopping")

    async def run(self) -> None:
        """Reload when asked, until `stop` or cancelled."""
        with self._scope:
            async for _ in self._rung:
                self._notifier.reloading()
                await self._reload()
                self._notifier.ready()

    async def _reload(self) -> None:
        try:
            config, tls, crews = await trio.to_thread.run_sync(self._prepare, abandon_on_cancel=True)
        except ConfigError as error:
            for line in error.errors:
                _log.error("not reloaded, the old configuration stays: %s", line)
            self.told.failed("; ".join(error.errors))
            return
        except OSError as error:  # ssl.SSLError is one
            _log.error(
                "not reloaded, the old configuration stays: server.certificate, server.key: %s", error.strerror or error
            )
            self.told.failed(f"server.certificate, server.key: {error.strerror or error}")
            return
        fixed = fixed_keys(self._started_with, config)
        for key in fixed:
            _log.warning("%s has changed: that takes a restart", key)
        for way in config.ways if config.ways != self._config.ways else ():
            _log.info("%s", way)
        await self._apply(config, tls, crews)
        self._config = config
        self.told.succeeded(self._clock.now_ms(), fixed)
        _log.info("reloaded; venues that began anew: %s", ", ".join(crews) or "none")

    def _prepare(self) -> tuple[Config, ssl.SSLContext | None, Crews]:
        """The part of a reload that may fail and reads files. Raises: ConfigError, OSError."""
        config = self._config if self._reread is None else self._reread()
        crews = {venue: connectors(venue, config) for venue in changed_venues(self._config, config)}
        return config, certificate.tls_context(config.server), crews
