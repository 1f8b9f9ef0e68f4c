"""What the configuration says, in the terms of the components that keep to it.

Used at the start and at each reload, so that both understand a configuration in the same way.
"""

from __future__ import annotations

from typing import Final

from daemon.config.load import Config
from daemon.config.tokens import grants
from daemon.front.admission import FrontDoorLimits, Terms
from daemon.health import crosscheck
from daemon.sessions.sessions import SessionLimits
from protocol.session import Limits

FILES_BESIDE_CLIENTS: Final = 256
"""Open files for everything that is not a client: listeners, venues, logs, connections being refused."""


def crosscheck_terms(config: Config) -> crosscheck.Terms:
    """What two venues may say differently."""
    check = config.crosscheck
    return crosscheck.Terms(check.band_percent, check.for_s, check.frozen_s, check.frozen_percent)


def session_limits(config: Config) -> SessionLimits:
    """What one session may take and cost."""
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


def admission_terms(config: Config) -> Terms:
    """On what terms clients are let in."""
    server = config.server
    return Terms(_front_door_limits(config), frozenset(server.origins), server.trusted_proxies, grants(config.tokens))


def _front_door_limits(config: Config) -> FrontDoorLimits:
    limits = config.limits
    return FrontDoorLimits(
        head_bytes=limits.head_bytes,
        body_bytes=limits.body_bytes,
        handshake_s=limits.handshake_s,
        keep_alive_s=limits.keep_alive_s,
        write_s=limits.write_deadline_s,
        connections=limits.clients + FILES_BESIDE_CLIENTS // 2,
        connections_per_address=limits.clients_per_address * 2,
        clients=limits.clients,
        clients_per_address=limits.clients_per_address,
    )
