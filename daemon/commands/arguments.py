"""The arguments of the command line, with help and examples. `__main__` carries the commands out."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final, NoReturn, TypeAlias

WRONG_USAGE: Final = 2

SHELLS: Final = ("bash", "zsh", "fish")
"""Whose completion there is."""

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
        "Real-time crypto market data from Binance, OKX, Coinbase, Kraken, Bybit and CoinGecko over one websocket.",
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
    _add_recordings(add)
    _add_replay(add)
    _add_export(add)
    _add_watch(add)
    _add_channels(add)
    _add_ping(add)
    _add_completion(add)
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
  tickerd run --host 0.0.0.0 --port 9000    whatever file and environment say
  tickerd run --config /etc/tickerd/tickerd.toml
  TICKERD_LOG__LEVEL=debug tickerd run""",
        name="run",
        help="serve the real venues",
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="the configuration, TOML")
    parser.add_argument("--host", metavar="ADDRESS", help="where to listen: localhost, or an IP address (localhost)")
    parser.add_argument("--port", type=_port, metavar="N", help="where to listen; 0 for any free port (8000)")


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
    parser.add_argument(
        "--recorded", type=Path, metavar="DIR", help="serve a folder of recorded payloads, or of `tickerd run`"
    )
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


def _add_recordings(add: _Add) -> None:
    parser = add(
        "List what `tickerd run` has recorded ([record] path): each connection with its channels, from when to when, "
        "how many frames, what is missing, and how much it takes.",
        """
  tickerd recordings /var/lib/tickerd/record
  tickerd recordings --json record | jq .gaps""",
        name="recordings",
        help="list what was recorded",
    )
    parser.add_argument("path", type=Path, metavar="PATH", help="the folder of the recording")
    parser.add_argument("--json", action="store_true", help="one object per line")


def _add_replay(add: _Add) -> None:
    parser = add(
        "Serve a recording as if it were live: the same channels, clients and page. `timestamp` is the time of "
        "sending, all other times are the recording's. When it has ended, the daemon stays until Ctrl-C. "
        "No venue is called.",
        """
  tickerd replay /var/lib/tickerd/record
  tickerd replay record --speed 10          ten times as fast
  tickerd replay record --speed max         as fast as can be
  tickerd replay record --from 2025-12-08T16:30:00Z --to 2025-12-08T17:00:00Z""",
        name="replay",
        help="serve a recording",
    )
    parser.add_argument("path", type=Path, metavar="PATH", help="the folder of the recording")
    parser.add_argument("--speed", type=_speed, default=1.0, metavar="N", help="times as fast as recorded, or max (1)")
    _add_span(parser)
    parser.add_argument("--port", type=_port, metavar="N", help="where to listen; 0 for any free port (8000)")


def _add_export(add: _Add) -> None:
    parser = add(
        "Write trades, quotes, candles or books of a recording into a table: Parquet, CSV or JSON lines, as the file's "
        "name says. Prices and sizes are exact. Parquet needs `pip install 'tickerd[parquet]'`. No venue is called.",
        """
  tickerd export record trades.parquet --kind trades
  tickerd export record btc.csv --kind quotes --instrument BTC/USDT
  tickerd export record hour.jsonl --kind depth --from 2025-12-08T16:00:00Z --to 2025-12-08T17:00:00Z""",
        name="export",
        help="write a recording into a table",
    )
    parser.add_argument("path", type=Path, metavar="PATH", help="the folder of the recording")
    parser.add_argument("out", type=Path, metavar="OUT", help="the file: *.parquet, *.csv or *.jsonl")
    parser.add_argument(
        "--kind", required=True, choices=("trades", "quotes", "candles", "depth"), help="the kind of channel"
    )
    _add_span(parser)
    parser.add_argument(
        "--instrument", action="append", default=[], metavar="NAME", help="only this; may be given again (all)"
    )
    parser.add_argument("--force", action="store_true", help="replace a file that is there")


def _add_span(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--from", type=_moment, dest="from_ms", metavar="T", help="ISO-8601, or ms since 1970 (the beginning)"
    )
    parser.add_argument("--to", type=_moment, dest="to_ms", metavar="T", help="the same (the end)")


def _moment(text: str) -> int:
    from daemon.commands.moments import moment

    try:
        return moment(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _speed(text: str) -> float:
    try:
        speed = math.inf if text == "max" else float(text)
    except ValueError:
        speed = math.nan
    if not 0.001 <= speed <= 1_000_000 and text != "max":
        raise argparse.ArgumentTypeError(f"got {text!r}; allowed: a number from 0.001 to 1000000, or max")
    return speed


def _token_name(text: str) -> str:
    from daemon.config.tokens import ALLOWED_NAME, is_name

    if not is_name(text):
        raise argparse.ArgumentTypeError(f"a name that is not allowed; allowed: {ALLOWED_NAME}")
    return text


def _add_watch(add: _Add) -> None:
    parser = add(
        "Show what a daemon sends: a live table, or JSON lines with --json or if standard output is not a terminal. "
        "A lost connection is reopened, and missed messages are fetched. Arrows, PgUp and PgDn, Home and End scroll; "
        "q or Ctrl-C ends it.",
        """
  tickerd watch                             every channel
  tickerd watch bitcoinprice ethprice
  tickerd watch --instrument BTC/USDT --instrument ETH/USDT
  tickerd watch --kind trades               every trade, the newest at the top
  tickerd watch --kind book --instrument BTC/USDT
  tickerd watch --interval 1000             the newest of each once a second
  tickerd watch --json bitcoinprice | head -3
  tickerd watch --url wss://prices.example.com --token-file token""",
        name="watch",
        help="show live prices",
    )
    parser.add_argument("channels", nargs="*", metavar="CHANNEL", help="by name (all)")
    parser.add_argument(
        "--instrument",
        action="append",
        default=[],
        metavar="NAME",
        help="only this one, as BTC/USDT; may be given again",
    )
    parser.add_argument("--kind", choices=("trades", "book"), help="a tape of trades, or one instrument's order book")
    parser.add_argument(
        "--interval",
        type=_interval,
        metavar="MS",
        help="at most one message of each in so many milliseconds (every one)",
    )
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


def _add_completion(add: _Add) -> None:
    parser = add(
        "Print a script that completes this command line in a shell. Its first lines say where it belongs.",
        """
  source <(tickerd completion bash)         in this shell, until it ends
  tickerd completion bash > ~/.local/share/bash-completion/completions/tickerd
  tickerd completion zsh > ~/.zfunc/_tickerd
  tickerd completion fish > ~/.config/fish/completions/tickerd.fish""",
        name="completion",
        help="complete the command line in a shell",
    )
    parser.add_argument("shell", choices=SHELLS, help="which shell it is for")


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


def _interval(text: str) -> int:
    from protocol.commands import LEAST_INTERVAL_MS, MOST_INTERVAL_MS

    if not (text.isascii() and text.isdecimal() and LEAST_INTERVAL_MS <= int(text) <= MOST_INTERVAL_MS):
        allowed = f"a whole number from {LEAST_INTERVAL_MS} to {MOST_INTERVAL_MS}, in milliseconds"
        raise argparse.ArgumentTypeError(f"got {text!r}; allowed: {allowed}")
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
