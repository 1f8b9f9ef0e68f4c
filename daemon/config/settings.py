"""The configuration file as a whole: its sections, each declared by the component that uses it.

The component defines each key's default and range; `daemon.config.load` checks what types and ranges cannot express. A
secret appears in no `repr`.
"""

from __future__ import annotations

import msgspec

from connectors.capture.recorder import RecordSettings
from daemon.config.channels import ChannelSection
from daemon.config.presets import CatalogueSettings
from daemon.config.tokens import TokenSection
from daemon.config.venues import Connectors
from daemon.front.limits import Limits
from daemon.front.listening import ServerSettings
from daemon.health.crosscheck import Tolerances
from daemon.host.logs import LogSettings
from daemon.ingest.fleet import RestartSettings
from daemon.publish.cluster.settings import Cluster
from daemon.publish.sequencer import Passes
from daemon.tape.tape import TapeSettings


class File(msgspec.Struct, frozen=True):
    """The whole file as it is written."""

    server: ServerSettings = ServerSettings()
    limits: Limits = Limits()
    tape: TapeSettings = TapeSettings()
    record: RecordSettings = RecordSettings()
    hub: Passes = Passes()
    cluster: Cluster = Cluster()
    supervisor: RestartSettings = RestartSettings()
    connectors: Connectors = Connectors()
    catalogue: CatalogueSettings = CatalogueSettings()
    channels: dict[str, ChannelSection] = {}
    tokens: dict[str, TokenSection] = {}
    crosscheck: Tolerances = Tolerances()
    log: LogSettings = LogSettings()
