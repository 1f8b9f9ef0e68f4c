"""`make bench`: the real daemon, measured beside a bare loop of `os.write`.

Server, venues and clients are processes of their own, on loopback: the server (`tickerd run`, or the write loop in its
place) has one core, the load and `tickerd simulate` another. CPU time is that of the server's process, read when the
window begins and when it ends; deliveries are counted by the clients in the same window. Each figure is the median of
several repetitions, the daemon and its floor taking turns, because the absolute ones vary from hour to hour and from
machine to machine: the ratios are what counts.
"""

from __future__ import annotations

import argparse
import os
import resource
import signal
import sys
import time
from pathlib import Path

from tests.bench import measures
from tests.bench.appends import appends
from tests.bench.cluster import CLUSTER
from tests.bench.crowds import CROWDS
from tests.bench.histories import histories
from tests.bench.measures import Plan
from tests.bench.processes import Cores
from tests.bench.recording import played, record
from tests.bench.report import Row, machine, plain, table
from tests.bench.streams import busy_day, streams

OURS = {"append": appends, "history": histories, "streams": streams, "busy_day": busy_day}
OURS |= {"record": record, "replay": played}
MEASURES = measures.MEASURES | OURS | CROWDS | CLUSTER

WITHIN_S = 1800
"""However it goes, it is over then."""


def main() -> int:
    """Measure, and print. Exit code 0, whatever the figures say; 1 where something could not be measured."""
    options = _arguments()
    _raise_descriptor_limit()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.alarm(WITHIN_S)
    cores = Cores.of_this_machine()
    os.sched_setaffinity(0, {cores.server, cores.others})
    about = machine(cores)
    print(about, flush=True)
    if options.quick:
        plan = Plan(cores, 1, 2.0, 0.5, (12_000, 24_000, 48_000, 96_000), _say)
    else:
        plan = Plan(cores, 3, 6.0, 2.0, (10_000, 14_000, 20_000, 28_000, 40_000, 56_000, 80_000), _say)
    rows: list[Row] = []
    began_s = time.monotonic()
    try:
        for name in options.only or MEASURES:
            _say(f"{name} ...")
            for row in MEASURES[name](plan):
                rows.append(row)
                print(plain(row), flush=True)
    except KeyboardInterrupt:
        _say("interrupted")
        return 130
    except (RuntimeError, OSError) as error:
        _say(f"could not be measured: {error}")
        return 1
    report = f"{about}\n\n{table(rows)}\n"
    if options.markdown is not None:
        options.markdown.write_text(report, encoding="utf-8")
    print(f"\n{report}\n{time.monotonic() - began_s:.0f} s")
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Measure the daemon.")
    parser.add_argument("--quick", action="store_true", help="about a minute, for a first look: one short repetition")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the report there too")
    parser.add_argument("--only", nargs="+", choices=MEASURES, metavar="MEASURE", help=f"of {', '.join(MEASURES)}")
    return parser.parse_args()


def _raise_descriptor_limit() -> None:
    """2 000 clients are as many files, in the server and in the load; the processes inherit the limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
