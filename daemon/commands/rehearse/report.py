"""What a rehearsal prints: a table for people, one JSON object a line for programs."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from typing import Final

import msgspec

from daemon.commands.rehearse.judge import Verdict

_HEAD: Final = ("fault", "clients were told", "noticed", "recovered", "lost", "doubled", "others", "daemon")
_LEAST_TOLD: Final = 30


def table(verdicts: Sequence[Verdict], width: int | None = None) -> str:
    """All verdicts, those of one venue together; below each that is not well, why. `width`: the terminal's."""
    if width is None:
        width = shutil.get_terminal_size((160, 24)).columns
    ordered = sorted(verdicts, key=lambda verdict: verdict.fault.partition(" ")[0])
    rows = [_HEAD, *map(_row, ordered)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    rest = sum(widths) - widths[1] + 2 * (len(_HEAD) - 1)
    widths[1] = max(_LEAST_TOLD, min(widths[1], width - rest))
    lines = [_line(_HEAD, widths), "  ".join("-" * width for width in widths)]
    for verdict in ordered:
        lines.append(_line(_row(verdict), widths))
        lines += [f"    NOT WELL: {problem}" for problem in verdict.problems]
    return "\n".join([*lines, "", summary(verdicts)])


def summary(verdicts: Sequence[Verdict]) -> str:
    """One line about all of them."""
    bad = [verdict for verdict in verdicts if not verdict.is_well]
    lost, doubled = sum(v.lost for v in verdicts), sum(v.doubled for v in verdicts)
    notices = sorted(v.notice_s for v in verdicts if v.notice_s is not None)
    told = [v.told_s for v in verdicts if v.told_s is not None]
    slowest = f"; told {1000 * max(told):.0f} ms after it was noticed at most" if told else ""
    middle = f"; noticed after {notices[len(notices) // 2]:.1f} s (median)" if notices else ""
    well = f"{len(verdicts) - len(bad)} of {len(verdicts)} faults ended well"
    return f"{well}: {lost} messages lost, {doubled} doubled{middle}{slowest}"


def progress(done: int, total: int, verdict: Verdict) -> str:
    """One line as a case ends."""
    return f"{done:>{len(str(total))}}/{total} {'well    ' if verdict.is_well else 'NOT WELL'} {verdict.fault}"


def json_line(verdict: Verdict) -> str:
    """One verdict as a JSON object, with `well`."""
    fields = {"well": verdict.is_well, **msgspec.structs.asdict(verdict)}
    fields = {key: round(value, 3) if isinstance(value, float) else value for key, value in fields.items()}
    return msgspec.json.encode(fields).decode()


def _row(verdict: Verdict) -> tuple[str, ...]:
    states = " > ".join(verdict.told) or "nothing"
    recovered = _seconds(verdict.recover_s)
    if verdict.promised_s is not None:
        recovered = f"told: in {verdict.promised_s:.0f} s"
    return (
        verdict.fault,
        f"{states} ({verdict.reason})" if verdict.reason else states,
        _seconds(verdict.notice_s),
        recovered,
        str(verdict.lost),
        str(verdict.doubled),
        "disturbed" if verdict.disturbed else "fine",
        "up" if verdict.up else "DOWN",
    )


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} s"


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    cut = (cell if len(cell) <= width else f"{cell[: width - 3]}..." for cell, width in zip(cells, widths, strict=True))
    return "  ".join(cell.ljust(width) for cell, width in zip(cut, widths, strict=True)).rstrip()
