"""The arguments of the command line, with help and examples. `__main__` carries the commands out."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final, NoReturn, TypeAlias

WRONG_USAGE: Final = 2

_Add: TypeAlias = Callable[..., argparse.ArgumentParser]


class _Parser(argparse.ArgumentParser):
    """Reports an error in one line instead of the whole usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(WRONG_USAGE, f"tickerd: {' '.join(message.splitlines())}; see {self.prog} --help\n")


def parser(version: str) -> argparse.ArgumentParser:
    """The parser of the whole command line. The result's `command` is the name of a sub-command.

    On a wrong command line `parse_args` raises SystemExit(2), after one line on standard error.
    """
    whole = _command_parser(
        _Parser,
        "Real-time crypto market data from Binance, OKX and CoinGecko over one websocket.",
        """
  tickerd demo                              try it, with simulated venues
  tickerd run                               serve the real venues on localhost, port 8000
  tickerd run --config tickerd.toml         the same, configured by a file
  tickerd check tickerd.toml                check a configuration
  tickerd token partner                     make a token that lets a client in
  tickerd simulate --port 9000              the simulated venues as a process of their own
  tickerd rehearse                          try every fault on a daemon, and show what clients are told
  tickerd watch bitcoinprice                show the prices of a running daemon
  TICKERD_SERVER__PORT=9000 tickerd run     the environment overrides the file""",
        prog="tickerd",
    )
    whole.add_argument("--version", action="version", version=f"tickerd {version}", help="print the version and stop")
    commands = whole.add_subparsers(metavar="COMMAND", dest="command", required=True)
    add = partial(_command_parser, commands.add_parser)
    _add_run(add)
    _add_demo(add)
    _add_simulate(add)
    _add_rehearse(add)
    _add_check(add)
    _add_token(add)
    _add_watch(add)
    _add_channels(add)
    _add_ping(add)
    return whole


def _command_parser(
    make: Callable[..., argparse.ArgumentParser], description: str, examples: str, **names: str
) -> argparse.ArgumentParser:
    return make(
        **names,
        description=description,
        epilog=f"examples:\n{examples.strip(chr(10))}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def _add_run(add: _Add) -> None:
    parser = add(
        "Serve the real venues until SIGTERM or Ctrl-C. Without a file the defaults apply: localhost, port 8000.",
        """
  tickerd run
  tickerd run --config /etc/tickerd/tickerd.toml
  TICKERD_LOG__LEVEL=debug tickerd run""",
        name="run",
        help="serve the real venues",
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="the configuration, TOML")


def _add_demo(add: _Add) -> None:
    parser = add(
        "Serve simulated venues, which need no network: the daemon and the venues in one process.",
        """
  tickerd demo
  tickerd demo --port 0                     on any free port
  tickerd demo --seed 7                     other prices; the same ones for the same seed
  tickerd demo --workers 2                  clients are served by two processes""",
        name="demo",
        help="try it, with simulated venues",
    )
    parser.add_argument("--port", type=_port, metavar="N", help="where to listen; 0 for any free port (8000)")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="decides all prices (1)")
    parser.add_argument(
        "--workers", type=_workers, metavar="N", help="processes that serve clients; 0 for one per core (1)"
    )


def _add_simulate(add: _Add) -> None:
    parser = add(
        "Serve the simulated venues alone: the interfaces of Binance, OKX, Coinbase, Kraken, Bybit and CoinGecko, "
        "on one port of loopback.",
        """
  tickerd simulate --port 9000
  tickerd simulate --port 0 --config-out venues.toml
  tickerd run --config venues.toml          a daemon for them, in another terminal
  tickerd simulate --okx-rate 100           ten times OKX's highest rate
  tickerd simulate --recorded payloads/     recorded payloads instead of a simulation
  tickerd simulate --scenario faults.toml   faults at set times; `GET /control/faults` lists them all
  curl -d '{"fault": "silence", "venue": "okx", "for_s": 40}' localhost:9000/control
  curl -d '{"clear": true}' localhost:9000/control""",
        name="simulate",
        help="serve the simulated venues alone",
    )
    parser.add_argument("--port", type=_port, default=0, metavar="N", help="where to listen; 0 for any free port (0)")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="decides all values (1)")
    parser.add_argument(
        "--okx-rate",
        type=_rate,
        default=5.0,
        metavar="TICKS_PER_S",
        help="ticker frames a second for each instrument (5)",
    )
    parser.add_argument(
        "--config-out", type=Path, metavar="FILE", help="write the configuration for `tickerd run` there"
    )
    parser.add_argument("--scenario", type=Path, metavar="FILE", help="faults at set times: TOML, [[step]] tables")
    parser.add_argument("--recorded", type=Path, metavar="DIR", help="serve a folder of recorded payloads instead")
    parser.add_argument("--stamp", action="store_true", help="put a monotonic stamp (ns) into each ticker frame")
    parser.add_argument(
        "--cache-s", type=_count, metavar="N", help="how long CoinGecko's answers stay the same (as the real ones)"
    )


def _add_rehearse(add: _Add) -> None:
    parser = add(
        "Play every fault of the simulated venues, and a full disk, on daemons started for this, with clients that "
        "note what they are told. Print a table: what clients were told, time to notice, time to recover, messages "
        "lost or doubled. Exit code 0 only if every fault ended well. It needs no network.",
        """
  tickerd rehearse
  tickerd rehearse --only silence --only http_status
  tickerd rehearse --sample                 one case of each fault
  tickerd rehearse --patience 130           sit out every pause that a venue asks for, up to two minutes
  tickerd rehearse --json                   one object per line""",
        name="rehearse",
        help="try every fault on a daemon",
    )
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="decides all values (1)")
    parser.add_argument(
        "--only", action="append", default=[], metavar="FAULT", help="a fault by name; may be given again"
    )
    parser.add_argument("--sample", action="store_true", help="one case of each fault")
    parser.add_argument("--jobs", type=_count, default=12, metavar="N", help="daemons side by side (12)")
    parser.add_argument(
        "--patience",
        type=_count,
        default=15,
        metavar="S",
        help="seconds to wait for recovery; a longer pause passes if clients were told of it (15)",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object per line instead of the table")


def _add_check(add: _Add) -> None:
    parser = add(
        "Check a configuration, with the environment's overrides: print every mistake with its key, the value and "
        "what is allowed, one per line. Exit code 78 if there is any.",
        """
  tickerd check tickerd.toml
  tickerd check --online tickerd.toml       ask the venues' lists for the instruments, too""",
        name="check",
        help="check a configuration",
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="the configuration, TOML")
    parser.add_argument(
        "--online",
        action="store_true",
        help="name each instrument that its venue does not list or does not trade; a venue that cannot be reached is "
        "only a warning",
    )


def _add_token(add: _Add) -> None:
    parser = add(
        "Make a token that lets a client in, and print it with its section for the configuration. The token is printed "
        "only this once and is stored nowhere: the configuration has its digest.",
        """
  tickerd token
  tickerd token partner                     for a client that the log calls partner""",
        name="token",
        help="make a token that lets a client in",
    )
    parser.add_argument(
        "name", nargs="?", type=_token_name, default="client", metavar="NAME", help="what the log calls it (client)"
    )


def _token_name(text: str) -> str:
    from daemon.config.tokens import ALLOWED_NAME, is_name

    if not is_name(text):
        raise argparse.ArgumentTypeError(f"a name that is not allowed; allowed: {ALLOWED_NAME}")
    return text


def _add_watch(add: _Add) -> None:
    parser = add(
        "Show what a daemon sends: a live table, or JSON lines with --json or if standard output is not a terminal. "
        "A lost connection is reopened, and missed messages are fetched. Ctrl-C ends it.",
        """
  tickerd watch                             every channel
  tickerd watch bitcoinprice ethprice
  tickerd watch --json bitcoinprice | head -3
  tickerd watch --url wss://prices.example.com --token-file token""",
        name="watch",
        help="show live prices",
    )
    parser.add_argument("channels", nargs="*", metavar="CHANNEL", help="by name (all)")
    parser.add_argument("--json", action="store_true", help="the daemon's messages, one per line")
    _add_peer(parser)


def _add_channels(add: _Add) -> None:
    parser = add(
        "Show the channels of a daemon, and the state of each.",
        """
  tickerd channels
  tickerd channels --json""",
        name="channels",
        help="show the channels",
    )
    parser.add_argument("--json", action="store_true", help="one object per line")
    _add_peer(parser)


def _add_ping(add: _Add) -> None:
    parser = add(
        "Measure the round trip to a daemon, and how far its clock is off this machine's.",
        """
  tickerd ping
  tickerd ping --count 1 --url prices.example.com:8000""",
        name="ping",
        help="round trip and clock offset",
    )
    parser.add_argument("--count", type=_count, default=4, metavar="N", help="pings, one a second (4)")
    _add_peer(parser)


def _add_peer(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--url",
        default="ws://127.0.0.1:8000/ws",
        metavar="URL",
        help="ws://, wss://, http://, https:// or host:port (ws://127.0.0.1:8000/ws)",
    )
    parser.add_argument(
        "--token-file", type=Path, metavar="FILE", help="the file with the token; else TICKERD_TOKEN of the environment"
    )


def _workers(text: str) -> int:
    from daemon.front.listening import MOST_WORKERS

    if not (text.isascii() and text.isdecimal() and int(text) <= MOST_WORKERS):
        raise argparse.ArgumentTypeError(f"got {text!r}; allowed: a whole number from 0 to {MOST_WORKERS}")
    return int(text)


def _port(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and int(text) <= 65535):
        raise argparse.ArgumentTypeError(f"got {text!r}; allowed: a whole number from 0 to 65535")
    return int(text)


def _count(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and 1 <= int(text) <= 3600):
        raise argparse.ArgumentTypeError(f"got {text!r}; allowed: a whole number from 1 to 3600")
    return int(text)


def _rate(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = math.nan
    if not 0 < rate <= 100_000:
        raise argparse.ArgumentTypeError(f"got {text!r}; allowed: a number over 0, up to 100000")
    return rate
