"""`make soak`: 200 clients that come, go, stall, resume and misbehave, venues that fail, and a judge of every record.

    python -m tests.soak [--minutes 3] [--clients 200] [--seed 1]

Exit code 0 where nothing is wrong; 1 else, with the first offences and the folder of the logs.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Final

from tests.soak.processes import CONFIG
from tests.soak.soak import CLOCK_BACK_S, PAUSE_S, SLACK_KIB, Plan, Result, counted, soak

_SHOWN: Final = 20


def report(result: Result) -> str:
    """In a few lines, what was done and found."""
    before, after = result.before, result.after
    lines = [
        f"clients     {result.clients} in two waves, {result.sessions} sessions",
        f"deeds       {counted(result.deeds)}",
        f"closed      by the daemon, by code: {counted(result.closes)}",
        f"witnessed   {sum(result.witnessed.values())} messages: {counted(result.witnessed)}",
        f"checked     {result.messages} messages; other: {counted(result.said)}",
        f"books       {result.books} that clients had or were given compared with the witnesses'; "
        f"{result.market_books} of these with the simulated market at the end",
        f"explained   messages that did not come: {counted(result.explained)}",
        f"faults      {sum(result.faults.values())} played: {counted(result.faults)}",
    ]
    if before is not None and after is not None:
        lines += [
            f"itself      stopped for {PAUSE_S:g} s, its clock set back by {CLOCK_BACK_S:g} s",
            f"memory      {before.memory_kib} KiB before, {after.memory_kib} KiB after ({SLACK_KIB} more allowed)",
            f"tasks       {before.tasks} before, {after.tasks} after (none more allowed)",
            f"files       {before.files} before, {after.files} after (none more allowed)",
        ]
    lines.append(f"exit code   {result.exit_code} on SIGTERM")
    return "\n".join(lines)


def main() -> int:
    """Run a soak and say how it went."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", allow_abbrev=False)
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--fault", choices=("none", "mute"), default="none", help="what is to be wrong with the daemon")
    parser.add_argument("--workers", type=int, default=1, help="processes that serve clients")
    parser.add_argument("--quiet", action="store_true", help="do not print the configuration")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="tickerd-soak-"))
    plan = Plan(arguments.minutes * 60, arguments.clients, arguments.seed, arguments.fault, arguments.workers)
    if not arguments.quiet:
        sys.stdout.write(f"{CONFIG}\n")
    sys.stdout.write(f"{plan.clients} clients for {plan.seconds:g} s, seed {plan.seed}; logs in {folder}\n")
    sys.stdout.flush()
    result = soak(plan, folder)
    sys.stdout.write(f"{report(result)}\n")
    if not result.wrong and not result.offences:
        shutil.rmtree(folder)
        sys.stdout.write("nothing is wrong\n")
        return 0
    offences = [str(offence) for offence in result.offences]
    (folder / "offences.txt").write_text("\n".join([*result.wrong, *offences]), encoding="utf-8")
    sys.stdout.write(
        "\n".join([f"WRONG, {len(offences)} offences:", *result.wrong[:_SHOWN], *offences[:_SHOWN], f"in {folder}\n"])
    )
    return 1


if __name__ == "__main__":
    sys.exit(main())
