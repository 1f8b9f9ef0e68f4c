"""The report: what was measured, on what, and whether it is what it should be."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Final, Literal

import msgspec

from tests.bench.processes import ROOT, Cores

AT_MOST: Final = "at most"
AT_LEAST: Final = "at least"

PACKAGES: Final = ("tickerd", "trio", "trio-websocket", "wsproto", "msgspec", "h11")


class Row(msgspec.Struct):
    """One measure over all repetitions.

    Attributes:
        what: its name.
        unit: of the values.
        bound: which way the target goes; None where there is none.
        limit: the target.
        of_value: whether it is about the daemon's value, and not about the ratio.
        note: what else is to be known.
        ours: the daemon's values.
        others: those of what it is compared with, in the same order.
    """

    what: str
    unit: str
    bound: Literal["at most", "at least"] | None = None
    limit: float = 0.0
    of_value: bool = False
    note: str = ""
    ours: list[float] = []
    others: list[float] = []

    def add(self, ours: float, other: float | None = None) -> None:
        """One repetition."""
        self.ours.append(ours)
        if other is not None:
            self.others.append(other)

    @property
    def ratios(self) -> list[float]:
        """The daemon's value through the other, for each repetition."""
        return [ours / other for ours, other in zip(self.ours, self.others, strict=False) if other]

    @property
    def met(self) -> bool | None:
        """Whether the median reaches the target; None where there is none."""
        values = self.ours if self.of_value else self.ratios
        if self.bound is None or not values:
            return None
        return median(values) <= self.limit if self.bound == AT_MOST else median(values) >= self.limit

    def cells(self) -> tuple[str, ...]:
        """What stands in the table."""
        target = "" if self.bound is None else f"{self.bound} {_figure(self.limit)}{'' if self.of_value else ' times'}"
        verdict = {None: "", True: "ok", False: "**not ok**"}[self.met]
        what = f"{self.what} ({self.note})" if self.note else self.what
        return what, self.unit, _quoted(self.ours), _quoted(self.others), _quoted(self.ratios), target, verdict


def _figure(value: float) -> str:
    """Three digits, and never an exponent."""
    if abs(value) >= 1000:
        return f"{value:,.0f}".replace(",", " ")
    return f"{value:.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"


def _quoted(values: Sequence[float]) -> str:
    """The median, and from where to where the repetitions went."""
    if not values:
        return ""
    if len(values) == 1:
        return _figure(values[0])
    return f"{_figure(median(values))} ({_figure(min(values))}..{_figure(max(values))})"


def plain(row: Row) -> str:
    """One line for a terminal."""
    what, unit, ours, other, ratio, target, verdict = row.cells()
    line = f"{what}: {ours} {unit}"
    if other:
        line += f"; compared with {other}: {ratio} times"
    return f"{line}; {target}: {verdict.strip('*')}" if target else line


def table(rows: Sequence[Row]) -> str:
    """All rows in Markdown."""
    head = ("measure", "unit", "tickerd", "compared with", "ratio", "target", "")
    lines = [head, tuple("---" for _ in head), *(row.cells() for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |".replace("|  |", "| |") for cells in lines)


def machine(cores: Cores) -> str:
    """Where, and with which versions."""
    found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    model = found[1] if found else platform.machine()
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in PACKAGES)
    if cores.server == cores.others:
        layout = "ONE core for everything: the figures say little"
    else:
        layout = f"server on core {cores.server}, load and venues on core {cores.others}"
    return (
        f"{model}, {os.cpu_count()} cores, {platform.system()} {platform.release()}; {layout}. "
        f"{platform.python_implementation()} {platform.python_version()}, {versions}; commit {_commit()}."
    )


def _commit() -> str:
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--exclude=*"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return described.stdout.strip()
