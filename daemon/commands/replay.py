"""`tickerd replay`: what a recording needs to be served: a player for it, and a configuration with its channels."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from connectors.capture.reading import RecordingError
from connectors.capture.recorder import RecordSettings
from connectors.replay.playback import Playback, Source
from daemon.config.load import Config, parse
from daemon.config.reader import ENVIRONMENT_PREFIX
from daemon.host.clock import WallClock
from daemon.replay.player import Player

_NOT_OURS: Final = ("CONNECTORS__", "CHANNELS__", "CATALOGUE__", "TAPE__PATH", "RECORD__")
"""Variables of the environment that are about a daemon with venues."""


def replay(
    folder: Path,
    environ: Mapping[str, str],
    *,
    port: int | None,
    speed: float,
    from_ms: int | None,
    to_ms: int | None,
) -> tuple[Config, Player]:
    """The configuration of a daemon that plays this recording, and the player. Blocking.

    Args:
        folder: the recording.
        environ: overrides; those about venues and channels, and about what is kept on disk, are ignored.
        port: where the daemon listens; None keeps the configured port.
        speed: see `Player`.
        from_ms: where to begin; None: at the beginning.
        to_ms: where to end; None: at the end.

    Raises:
        RecordingError: there is no recording, it cannot be played, or has nothing of that time.
        ConfigError: something in the environment is not allowed.
    """
    source = Source(folder)
    playback = Playback(source, *within(source, folder, from_ms, to_ms))
    ignored = tuple(f"{ENVIRONMENT_PREFIX}{name}" for name in _NOT_OURS)
    kept = {name: value for name, value in environ.items() if not name.upper().startswith(ignored)}
    config = parse("", kept, "the replay")
    server = config.server if port is None else msgspec.structs.replace(config.server, port=port)
    tape, record = msgspec.structs.replace(config.tape, path=""), RecordSettings()
    channels = tuple(source.channels())
    config = msgspec.structs.replace(config, server=server, tape=tape, record=record, channels=channels, ways=())
    return config, Player(playback, speed)


def within(source: Source, folder: Path, from_ms: int | None, to_ms: int | None) -> tuple[int | None, int | None]:
    """The same, where the recording has something of that time. Raises: RecordingError."""
    whole, clock = source.whole, WallClock()
    has = f"{folder} is a recording from {clock.iso(whole.from_ms)} to {clock.iso(whole.to_ms)}"
    if from_ms is not None and from_ms > whole.to_ms:
        raise RecordingError(f"--from {clock.iso(from_ms)}: {has}")
    if to_ms is not None and to_ms < whole.from_ms:
        raise RecordingError(f"--to {clock.iso(to_ms)}: {has}")
    if from_ms is not None and to_ms is not None and from_ms >= to_ms:
        raise RecordingError(f"--from {clock.iso(from_ms)} is not before --to {clock.iso(to_ms)}")
    return None if from_ms is None or from_ms <= whole.from_ms else from_ms, to_ms
