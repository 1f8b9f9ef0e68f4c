"""The command line: `tickerd run` and the other commands of `daemon.commands.arguments`.

Exit codes: 0 for a clean stop, 2 for a wrong command line, 78 (EX_CONFIG of sysexits.h) for a wrong configuration, 1
for everything else. A user's mistake gives one line on standard error and no traceback; a traceback is a bug. Each
command imports what it needs by itself, so that `tickerd --version` does not load the daemon.
"""

from __future__ import annotations

import argparse
import errno
import io
import os
import socket
import ssl
import sys
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Final, TextIO, TypeVar

from daemon.commands.arguments import WRONG_USAGE, parser

if TYPE_CHECKING:
    from daemon.host.logs import LogSettings

_T = TypeVar("_T")

CLEAN: Final = 0
FAILED: Final = 1
WRONG_CONFIG: Final = 78
INTERRUPTED: Final = 130
"""The shells' code for an end by SIGINT: if it comes before the daemon handles signals, or during a rehearsal."""

_LISTENING_FAILED: Final = {errno.EADDRNOTAVAIL, errno.EACCES, errno.EPERM, errno.EAFNOSUPPORT}
_READING_FAILED: Final = {errno.ENOENT, errno.EACCES, errno.EPERM, errno.EISDIR}


class _Failure(Exception):
    """An error that the user or the machine caused: one line, and the exit code."""

    def __init__(self, line: str, status: int = FAILED) -> None:
        super().__init__(line)
        self.status = status


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code. The default of `argv` is the process's own arguments."""
    _reserve_standard_descriptors()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A file's name need not be valid text.
            stream.reconfigure(errors="backslashreplace")
    try:
        arguments = parser(version()).parse_args(argv)
        status = _COMMANDS[arguments.command](arguments)
    except _Failure as failure:
        _complain(str(failure))
        status = failure.status
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else CLEAN
    except KeyboardInterrupt:
        status = INTERRUPTED
    # Flush what argparse has printed: only this shows whether its reader is gone.
    _say("", end="")
    return status


def version() -> str:
    """The installed version; a checkout that is not installed has none."""
    try:
        return metadata.version("tickerd")
    except metadata.PackageNotFoundError:
        return "(not installed)"


def _say(text: str, end: str = "\n") -> None:
    """Print at once. A reader that has stopped (`tickerd --help | head -1`) is no error.

    An output that takes nothing, as a file on a full disk, is reported once; then the command goes on without it.
    """
    try:
        # Text and line end in one write: a line of the log may share the pipe.
        print(f"{text}{end}", end="", flush=True)
    except OSError as error:
        _give_up(sys.stdout)
        if not isinstance(error, BrokenPipeError):
            _complain(f"standard output cannot be written: {error.strerror}")


def _complain(line: str) -> None:
    try:
        print("tickerd:", *line.splitlines(), file=sys.stderr)
    except OSError:
        _give_up(sys.stderr)


def _give_up(stream: TextIO) -> None:
    """Send what is still in the stream's buffer, and all that follows, to /dev/null."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)


def _reserve_standard_descriptors() -> None:
    """Give numbers 0, 1 and 2 to /dev/null where they are closed.

    Else the next file or socket would get the number, and with it what is written to standard output or the log.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)
            if null != number:
                os.dup2(null, number)
                os.close(null)
            os.set_inheritable(number, True)


def _check(arguments: argparse.Namespace) -> int:
    from daemon import app
    from daemon.config.load import ConfigError, load
    from daemon.front.access import CLOSED
    from daemon.front.guarded import Mark

    try:
        config = load(arguments.file, os.environ)
    except ConfigError as error:
        for line in error.errors:
            _say(line)
        return WRONG_CONFIG
    try:
        remarks = [*config.warnings, *app.tried(config)]
    except OSError as error:
        _say(f"server.certificate, server.key: cannot be used: {error.strerror or error}")
        return WRONG_CONFIG
    except ConfigError as error:
        for line in error.errors:
            _say(line)
        return WRONG_CONFIG
    if arguments.online:
        import trio

        from daemon.commands.online import ask, ask_engine
        from daemon.composition.ingesting import checks

        wrong, unasked = trio.run(ask, checks(config))
        remarks += unasked
        if config.cluster.url:
            remarks.append(trio.run(ask_engine, config.cluster))
        for line in wrong:
            _say(line)
        if wrong:
            for sentence in unasked:
                _say(f"{arguments.file}: {sentence}")
            return WRONG_CONFIG
    count = len(config.channels)
    _say(f"{arguments.file}: ok, {count} channel{'s' if count != 1 else ''}")
    for sentence in (*remarks, *config.ways):
        _say(f"{arguments.file}: {sentence}")
    tokens = config.policy(guarded=Mark(config.tape.path).is_set()).tokens
    if tokens is not None and not tokens:
        _say(f"{arguments.file}: {CLOSED}")
    return CLEAN


def _token(arguments: argparse.Namespace) -> int:
    from daemon.config.tokens import written_hash
    from daemon.front.tokens import new_token

    token = new_token()
    lines = [f"[tokens.{arguments.name}]", f'hash = "{written_hash(token)}"', 'channels = ["*"]']
    _say("\n".join([token, "", "# The token is shown only this once. Put this into the configuration:", *lines]))
    return CLEAN


def _configured(make: Callable[[], _T]) -> _T:
    from daemon.config.load import ConfigError

    try:
        return make()
    except ConfigError as error:
        for line in error.errors:
            _complain(line)
        raise SystemExit(WRONG_CONFIG) from None


def _run(arguments: argparse.Namespace) -> int:
    from daemon import app
    from daemon.config.load import load

    given = {"server.host": arguments.host, "server.port": arguments.port}
    options = {key: value for key, value in given.items() if value is not None}
    reread = partial(load, arguments.config, os.environ, options)
    config = _configured(reread)
    start = partial(app.serve, config, announce=_announce, reread=reread)
    return _until_stopped(start, config.log, "choose another with --port, [server] port or TICKERD_SERVER__PORT")


def _demo(arguments: argparse.Namespace) -> int:
    from daemon import app
    from daemon.commands import demo

    def announce(urls: Sequence[str]) -> None:
        _announce(urls)
        _say(demo.introduction(config.server, urls))

    # The configuration needs the venues' port.
    with socket.create_server((demo.HOST, 0)) as venues:
        port: int = venues.getsockname()[1]
        config = _configured(lambda: demo.demo_config(port, os.environ, arguments.port, arguments.workers))
        serve = partial(app.serve, config, announce=announce)
        start = partial(demo.demo, venues, arguments.seed, serve)
        return _until_stopped(start, config.log, "choose another with --port")


def _announce(urls: Sequence[str]) -> None:
    for url in urls:
        _say(f"listening on {url}")


def _simulate(arguments: argparse.Namespace) -> int:
    from connectors.simulator.faults.orders import Scenario, ScenarioError, load_scenario
    from connectors.simulator.simulator import Simulator
    from connectors.simulator.venues import recorded_folder
    from connectors.simulator.venues.coingecko import MARKETS_PERIOD_S, SLOW_PERIOD_S
    from connectors.simulator.venues.recording import RecordingError
    from daemon.commands import demo
    from daemon.host.logs import LogSettings

    def ready(url: str, config: str) -> None:
        if arguments.config_out is None:
            _say(config)
        else:
            _write(arguments.config_out, config)
        _say(f"listening on {url}")

    try:
        recording = None if arguments.recorded is None else recorded_folder.load(arguments.recorded)
        scenario = Scenario() if arguments.scenario is None else load_scenario(arguments.scenario)
        for name in () if recording is None else recording.left_out:
            _complain(f"{arguments.recorded / name}: left out: Coinbase's Exchange feed, which tickerd does not speak")
    except RecordingError as error:
        raise _Failure(str(error)) from None
    except ScenarioError as error:
        for line in error.errors:
            _complain(line)
        return WRONG_CONFIG
    simulator = Simulator(
        seed=arguments.seed,
        okx_rate=arguments.okx_rate,
        stamp=arguments.stamp,
        recording=recording,
        scenario=scenario,
        markets_period_s=arguments.cache_s or MARKETS_PERIOD_S,
        slow_period_s=arguments.cache_s or SLOW_PERIOD_S,
    )
    start = partial(demo.simulate, simulator, arguments.port, ready)
    return _until_stopped(start, LogSettings(), "choose another with --port")


def _rehearse(arguments: argparse.Namespace) -> int:
    import trio

    from connectors.base import leaves
    from daemon.commands.rehearse import rehearse, report
    from daemon.commands.rehearse.judge import Verdict
    from daemon.commands.rehearse.pair import ProcessError

    try:
        cases = rehearse.chosen(arguments.only)
    except ValueError as error:
        raise _Failure(f"{error}; see tickerd rehearse --help", WRONG_USAGE) from None
    if arguments.sample:
        cases = rehearse.samples(cases)
    verdicts: list[Verdict] = []

    def ended(verdict: Verdict) -> None:
        verdicts.append(verdict)
        if arguments.json:
            _say(report.json_line(verdict))
        else:
            print(report.progress(len(verdicts), len(cases), verdict), file=sys.stderr, flush=True)

    terms = rehearse.Terms(arguments.seed, min(arguments.jobs, len(cases)), arguments.patience)
    try:
        played = trio.run(partial(rehearse.rehearse, cases, terms, ended=ended))
    except BaseExceptionGroup as error:
        failed = next((leaf for leaf in leaves(error) if isinstance(leaf, ProcessError)), None)
        if failed is None:
            raise
        raise _Failure(str(failed)) from None
    if verdicts and not arguments.json:
        _say(report.table(verdicts))
    if not played:
        return INTERRUPTED
    return CLEAN if all(verdict.is_well for verdict in verdicts) else FAILED


def _talk(arguments: argparse.Namespace) -> int:
    """`watch`, `channels`, `ping`: the commands that talk to a daemon."""
    from daemon.commands.terminal.peer import CommandFailed, open_peer, run

    try:
        peer = open_peer(arguments.url, arguments.token_file, os.environ)
        if arguments.command == "ping":
            from daemon.commands.terminal.ping import ping

            run(partial(ping, peer, arguments.count, _say))
        elif arguments.command == "channels":
            from daemon.commands.terminal.channels import channels

            run(partial(channels, peer, _say, json=arguments.json))
        else:
            from daemon.commands.terminal.choice import Wish
            from daemon.commands.terminal.watch import watch

            wish = Wish(tuple(arguments.channels), tuple(arguments.instrument), arguments.kind, arguments.interval)
            run(partial(watch, peer, wish, json=arguments.json or not sys.stdout.isatty()))
    except CommandFailed as failure:
        raise _Failure(str(failure), failure.status) from None
    return CLEAN


def _completion(arguments: argparse.Namespace) -> int:
    from daemon.commands.completion import script
    from daemon.commands.outline import outline

    _say(script(arguments.shell, outline(parser(version()))))
    return CLEAN


def _recordings(arguments: argparse.Namespace) -> int:
    from connectors.capture.reading import RecordingError
    from daemon.commands.recordings import show

    try:
        show(arguments.path, _say, json=arguments.json)
    except RecordingError as error:
        raise _Failure(str(error)) from None
    return CLEAN


def _replay(arguments: argparse.Namespace) -> int:
    from connectors.capture.reading import RecordingError
    from daemon import app
    from daemon.commands.replay import replay

    try:
        made = partial(replay, arguments.path, os.environ, port=arguments.port, speed=arguments.speed)
        config, player = _configured(partial(made, from_ms=arguments.from_ms, to_ms=arguments.to_ms))
    except RecordingError as error:
        raise _Failure(str(error)) from None
    _say(f"playing {arguments.path} from {player.info.from_} to {player.info.to}, speed {player.info.speed}")
    start = partial(app.serve, config, announce=_announce, player=player)
    return _until_stopped(start, config.log, "choose another with --port")


def _export(arguments: argparse.Namespace) -> int:
    from connectors.capture.reading import RecordingError
    from daemon.commands.export.export import export
    from daemon.commands.export.progress import shown
    from daemon.commands.export.sinks import ExportError

    try:
        with shown(arguments.out.name, sys.stderr) as progress:
            exported = export(
                arguments.path,
                arguments.out,
                kind=arguments.kind,
                from_ms=arguments.from_ms,
                to_ms=arguments.to_ms,
                instruments=arguments.instrument,
                force=arguments.force,
                progress=progress,
            )
    except (RecordingError, ExportError) as error:
        raise _Failure(str(error)) from None
    for remark in exported.remarks:
        _complain(remark)
    topics = f"{exported.topics} topic{'s' if exported.topics != 1 else ''}"
    _say(f"{arguments.out}: {exported.rows} rows of {topics}")
    return CLEAN


def _write(path: Path, text: str) -> None:
    """Replace a file in one step, so that a process that waits for it never reads half of it."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        unfinished.write_text(text, encoding="utf-8")
        unfinished.replace(path)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise _Failure(f"{path}: cannot be written: {error.strerror}") from None


def _until_stopped(start: Callable[[], Awaitable[int]], log: LogSettings, hint: str) -> int:
    """Log, run until stopped, and report in one line what fails only then: an address, a certificate."""
    import trio

    from connectors.base import leaves
    from daemon.config.load import ConfigError
    from daemon.host import logs
    from daemon.host.loop_clock import LoopClock

    stop_logging = logs.setup(log.level, log.format)
    try:
        return trio.run(start, clock=LoopClock())
    except ConfigError as error:
        for line in error.errors:
            _complain(line)
        return WRONG_CONFIG
    except (OSError, BaseExceptionGroup) as error:
        match list(leaves(error)):
            case [KeyboardInterrupt() | _Failure() as ours]:
                raise ours from None
            case [OSError() as cause]:
                raise _explained(cause, hint) or error from None
        raise
    finally:
        stop_logging()


def _explained(error: OSError, hint: str) -> _Failure | None:
    """The error in one line, if the user can fix it. Listeners put their address and port into `filename`."""
    from daemon.front.listening import PassedSocketError
    from daemon.tape.database import ArchiveError

    if isinstance(error, PassedSocketError):
        return _Failure(str(error), WRONG_CONFIG)
    if isinstance(error, ArchiveError):
        return _Failure(str(error), WRONG_CONFIG if error.permanent else FAILED)
    if isinstance(error, ssl.SSLError) or (error.filename is None and error.errno in _READING_FAILED):
        reason = error.strerror or str(error)
        return _Failure(f"server.certificate, server.key: cannot be used: {reason}", WRONG_CONFIG)
    if error.errno == errno.EADDRINUSE and error.filename is not None:
        return _Failure(f"{error.filename} is in use; {hint}")
    if error.errno in _LISTENING_FAILED and error.filename is not None:
        return _Failure(f"cannot listen on {error.filename}: {error.strerror}; {hint}")
    return None


_COMMANDS: Final = {
    "run": _run,
    "demo": _demo,
    "simulate": _simulate,
    "rehearse": _rehearse,
    "check": _check,
    "token": _token,
    "recordings": _recordings,
    "replay": _replay,
    "export": _export,
    "watch": _talk,
    "channels": _talk,
    "ping": _talk,
    "completion": _completion,
}


if __name__ == "__main__":
    sys.exit(main())
