"""The figures of all workers as one: what is added up, what is not, and what each worker has for itself.

A client of Prometheus finds the names that a daemon of one process has, with one figure each. What a process uses is
told for each worker, by the label `worker`; without it, it is the parent's.

Counters never fall: what a worker had counted when it ended stays in the sum.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from connectors.metric import Samples
from daemon.workers.messages import Family

_OF_A_PROCESS: Final = ("process_", "tickerd_tasks", "tickerd_log_lines_dropped")
_GREATEST: Final = frozenset({"tickerd_clients_max", "tickerd_connections_max"})
_LEAST: Final = frozenset({"tickerd_accepting"})

_Key = tuple[str, tuple[tuple[str, str], ...]]


class Figures:
    """What the workers have measured, by worker."""

    def __init__(self) -> None:
        self._now: dict[int, list[Family]] = {}
        self._ended: dict[str, tuple[Family, dict[_Key, float]]] = {}

    def measured(self, worker: int, families: list[Family]) -> None:
        """These are the worker's newest figures."""
        self._now[worker] = families

    def ended(self, worker: int) -> None:
        """The worker has ended: its counters stay, and everything else goes."""
        for family in self._now.pop(worker, ()):
            if family.kind != "gauge" and not family.name.startswith(_OF_A_PROCESS):
                _, kept = self._ended.setdefault(family.name, (family, {}))
                for name, labels, value in family.samples:
                    key = name, tuple(labels.items())
                    kept[key] = kept.get(key, 0.0) + value

    def measure(self, samples: Samples) -> None:
        """Add all of them."""
        sums: dict[str, tuple[Family, dict[_Key, float]]] = {
            name: (family, dict(kept)) for name, (family, kept) in self._ended.items()
        }
        for worker, families in self._now.items():
            for family in families:
                if family.name.startswith(_OF_A_PROCESS):
                    own = [(name, {**labels, "worker": str(worker)}, value) for name, labels, value in family.samples]
                    samples.take(family.kind, family.name, family.text, own)
                    continue
                _, found = sums.setdefault(family.name, (family, {}))
                for name, labels, value in family.samples:
                    key = name, tuple(labels.items())
                    found[key] = _together(family.name, [found[key], value] if key in found else [value])
        for family, found in sums.values():
            all_of_them = [(name, dict(labels), value) for (name, labels), value in found.items()]
            samples.take(family.kind, family.name, family.text, all_of_them)


def _together(name: str, values: Iterable[float]) -> float:
    if name in _GREATEST:
        return max(values)
    return min(values) if name in _LEAST else sum(values)
