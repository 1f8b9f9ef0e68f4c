"""How the last reload of the configuration went: for systemd's status line, `GET /readyz` and the metrics.

A reload that fails changes nothing, and clients notice nothing: whoever wrote the file has to be told some other way.
"""

from __future__ import annotations

from collections.abc import Sequence

from connectors.metric import Samples


class Reloads:
    """Remembers the last one. The start counts as one that went well."""

    def __init__(self, now_ms: int) -> None:
        self._good_ms = now_ms
        self._failure = ""
        self._waiting: tuple[str, ...] = ()

    def succeeded(self, now_ms: int, waiting: Sequence[str] = ()) -> None:
        """The new configuration is in force, but for the keys in `waiting`, which take a restart."""
        self._good_ms = now_ms
        self._failure = ""
        self._waiting = tuple(waiting)

    def failed(self, reason: str) -> None:
        """The old configuration stays. `reason` is for the operator: it may name files."""
        self._failure = reason

    @property
    def trouble(self) -> str:
        """What anybody may hear of it; "" while the last reload was a good one."""
        return "the last reload of the configuration failed, and the one before it is in force" if self._failure else ""

    @property
    def words(self) -> str:
        """The same for the operator, with the reason; also which keys wait for a restart. "" where there is nothing."""
        if self._failure:
            return f"the last reload failed: {self._failure}"
        return f"a restart is needed for {', '.join(self._waiting)}" if self._waiting else ""

    def measure(self, samples: Samples) -> None:
        """Add how the last one went, and when the last good one was."""
        samples.value(
            "tickerd_config_reload_failed", "1 while the last reload is a failed one.", int(bool(self._failure))
        )
        samples.value(
            "tickerd_config_loaded_time_seconds", "When the configuration in force was read.", self._good_ms / 1000
        )
