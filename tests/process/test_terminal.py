"""`tickerd watch`, `channels` and `ping` as a person and a shell have them: in a pseudo-terminal, in a pipe."""

import fcntl
import json
import os
import pty
import re
import select
import shlex
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from rich.cells import cell_len
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, serve

SOON_S = 15.0
TICKERD = [sys.executable, "-m", "daemon"]
STAMP = "2025-12-08T16:30:45.123Z"


def _run(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*TICKERD, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=SOON_S,
        stdin=subprocess.DEVNULL,
        env={**os.environ, **environ},
    )


def _url(port: int) -> str:
    return f"127.0.0.1:{port}"


class Terminal:
    """A process in a terminal of its own, as wide and high as a test says."""

    def __init__(
        self,
        *arguments: str,
        columns: int = 120,
        lines: int = 50,
        term: str | None = "xterm-256color",
        command: Sequence[str] = TICKERD,
        environ: Mapping[str, str] = MappingProxyType({}),
        keyboard: bool = True,
    ) -> None:
        self.output = ""
        environ = {name: value for name, value in os.environ.items() if name not in ("TERM", "NO_COLOR")} | dict(
            environ
        )
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self._slave = slave
        self.before = termios.tcgetattr(slave)
        self.process = subprocess.Popen(
            [*command, *arguments],
            stdin=slave if keyboard else subprocess.DEVNULL,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            # So that Ctrl-C, typed into it, is a signal.
            preexec_fn=lambda: fcntl.ioctl(1, termios.TIOCSCTTY, 0),
            env=environ if term is None else {**environ, "TERM": term},
        )

    def read(self, until: Callable[[str], bool]) -> None:
        """Read on until what was printed so far is as wanted."""
        deadline = time.monotonic() + SOON_S
        while not until(self.output):
            assert time.monotonic() < deadline, f"never came; the last was {self.output[-2000:]!r}"
            if select.select([self._master], [], [], 0.1)[0]:
                try:
                    self.output += os.read(self._master, 65536).decode(errors="replace")
                except OSError:  # Linux: the other end is closed
                    assert until(self.output), self.output[-2000:]

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self._master, text.encode())

    def wait(self) -> int:
        """Its exit code; what it has printed is in `output`."""
        deadline = time.monotonic() + SOON_S
        while (code := self.process.poll()) is None:
            # A terminal takes what is written to it.
            assert time.monotonic() < deadline, "it does not end"
            if select.select([self._master], [], [], 0.05)[0]:
                self.output += os.read(self._master, 65536).decode(errors="replace")
        while select.select([self._master], [], [], 0)[0]:
            self.output += os.read(self._master, 65536).decode(errors="replace")
        return code

    def is_as_before(self) -> bool:
        """The cursor is visible, the screen the ordinary one, and the line discipline untouched."""
        shown = self.output.rfind("\x1b[?25h") > self.output.rfind("\x1b[?25l") >= 0
        ordinary = self.output.rfind("\x1b[?1049l") > self.output.rfind("\x1b[?1049h") >= 0
        return shown and ordinary and termios.tcgetattr(self._slave) == self.before

    def end(self) -> None:
        """Make sure it is gone."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(5)
        os.close(self._slave)
        os.close(self._master)


@contextmanager
def open_terminal(*arguments: str, **options: Any) -> Iterator[Terminal]:
    terminal = Terminal(*arguments, **options)
    try:
        yield terminal
    finally:
        terminal.end()


def _plain(output: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", output)


@contextmanager
def _scripted(*messages: dict[str, object], token: str = "", lasts_s: float = 60) -> Iterator[int]:
    """A daemon that answers a subscription with these messages and is silent then; its port."""
    silence = threading.Event()

    def talk(connection: ServerConnection) -> None:
        def say(**message: object) -> None:
            connection.send(json.dumps({"timestamp": STAMP, **message}))

        server = {"name": "tickerd", "version": "9\x1b[31m"}
        say(type="welcome", server=server, epoch="e", seq=1, channels=["x"], heartbeat_s=60)
        try:
            ends_s = time.monotonic() + lasts_s
            while not silence.is_set() and time.monotonic() < ends_s:
                try:
                    command = json.loads(connection.recv(timeout=0.1))
                except TimeoutError:
                    continue
                if command["type"] == "ping":
                    say(type="pong", id=command["id"])
                else:
                    say(type="subscribed", channels=["x"], id=command["id"], epoch="e", seq=1)
                    for message in messages:
                        say(**message)
        except ConnectionClosed:
            return

    def judge(connection: ServerConnection, request: object) -> object:
        headers = getattr(request, "headers", {})
        refused = token and headers.get("Authorization") != f"Bearer {token}"
        return connection.respond(401, "no\n") if refused else None

    with serve(talk, "127.0.0.1", 0, process_request=judge) as server:  # type: ignore[arg-type] # loosely typed here
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.socket.getsockname()[1]
        finally:
            silence.set()
            server.shutdown()
            thread.join(5)


def _status(state: str = "live", reason: str = "") -> dict[str, object]:
    return {"type": "status", "channel": "x", "state": state, "since": STAMP, "reason": reason}


def test_the_table_shows_prices_that_move_and_ctrl_c_gives_the_terminal_back(demo_port: int) -> None:
    def prices(output: str) -> set[str]:
        return set(re.findall(r"bitcoinprice +BTC/USDT +([0-9.]+) +[▲▼]? +[0-9.]+ s +live", _plain(output)))

    with open_terminal("watch", "bitcoinprice", "coingecko_global", "--url", _url(demo_port)) as terminal:
        terminal.read(lambda output: len(prices(output)) >= 3)
        assert "\x1b[?25l" in terminal.output
        assert re.search("coingecko_global +[0-9.]+ s +live", _plain(terminal.output))
        assert re.search("[▲▼]", terminal.output)
        terminal.type("\x03")
        assert terminal.wait() == 0
        assert terminal.is_as_before()
        assert "Traceback" not in terminal.output
        assert "bitcoinprice" in terminal.output[terminal.output.rfind("\x1b[?1049l") :], "no last table is left"


def test_what_does_not_fit_is_scrolled_to_and_q_ends_it(demo_port: int) -> None:
    with open_terminal("watch", "--url", _url(demo_port), lines=12, columns=60) as terminal:
        terminal.read(lambda output: re.search(r"1-9 of \d+", _plain(output)) is not None)
        for keys, first in (("\x1b[B", 2), ("\x1b[6~", 10), ("\x1b[5~\x1bOA", 1), ("\x1b[F\x1b[H", 1)):
            before = len(terminal.output)
            terminal.type(keys)
            wanted = f"{first}-{first + 8} of"
            terminal.read(lambda _, at=before, seen=wanted: seen in _plain(terminal.output[at:]))  # type: ignore[misc]
        terminal.type("\x1b[F")
        terminal.read(lambda output: re.search(r"-(\d+) of \1;", _plain(output)) is not None)
        terminal.type("q")
        assert terminal.wait() == 0
        assert terminal.is_as_before()


def test_a_terminate_signal_gives_the_terminal_back(demo_port: int) -> None:
    with open_terminal("watch", "--url", _url(demo_port)) as terminal:
        terminal.read(lambda output: "live" in output)
        terminal.process.send_signal(signal.SIGTERM)
        assert terminal.wait() == 0
        assert terminal.is_as_before()


@pytest.mark.parametrize(("columns", "lines"), [(1, 1), (20, 5), (80, 24), (300, 100)])
def test_any_window_is_filled_and_none_is_overflown(demo_port: int, columns: int, lines: int) -> None:
    with open_terminal("watch", "--url", _url(demo_port), columns=columns, lines=lines) as terminal:
        terminal.read(lambda output: output.count("\x1b[H") > 3)
        terminal.type("q")
        assert terminal.wait() == 0
        assert terminal.is_as_before()
    frames = terminal.output.partition("\x1b[?1049l")[0].split("\x1b[H")[2:-1]
    for frame in frames:
        rows = _plain(frame).split("\n")
        assert len(rows) <= lines
        assert [row for row in rows if cell_len(row.rstrip("\r")) > columns] == []


@pytest.mark.parametrize(
    ("arguments", "pattern"),
    [
        (("--kind", "trades"), r"\d\d:\d\d:\d\d\.\d{3} +\w+_trades +\w+/USDT +(buy|sell) +[0-9.]+ +[0-9.]+"),
        (("--kind", "book", "--instrument", "btc/usdt"), r"[0-9.]+ +[0-9]+\.[0-9]+ +[0-9]+\.[0-9]+ +[0-9.]+"),
        (("--instrument", "ETH/USDT", "--interval", "100"), r"ethprice +ETH/USDT +[0-9.]+"),
    ],
)
def test_a_tape_of_trades_a_book_and_one_instrument(demo_port: int, arguments: tuple[str, ...], pattern: str) -> None:
    with open_terminal("watch", *arguments, "--url", _url(demo_port)) as terminal:
        terminal.read(lambda output: re.search(pattern, _plain(output)) is not None)
        terminal.type("q")
        assert terminal.wait() == 0
        assert terminal.is_as_before()
    if "ETH/USDT" in arguments:
        assert "BTC/USDT" not in terminal.output
        assert "left out, as no message of them may be skipped (--interval): " in _plain(terminal.output)


def test_without_colours_nothing_is_coloured(demo_port: int) -> None:
    with open_terminal("watch", "--url", _url(demo_port), environ={"NO_COLOR": "1"}) as terminal:
        terminal.read(lambda output: output.count("\x1b[H") > 3 and "live" in output)
        terminal.type("q")
        assert terminal.wait() == 0
    colours = [code for found in re.findall(r"\x1b\[([0-9;]*)m", terminal.output) for code in found.split(";")]
    assert [code for code in colours if code not in ("", "0", "1", "2")] == []


def test_ctrl_z_gives_the_terminal_back_until_it_goes_on(demo_port: int) -> None:
    """In a shell, as a process that no shell could wake is not stopped at all."""
    watch = shlex.join([*TICKERD, "watch", "bitcoinprice", "--url", _url(demo_port)])
    with open_terminal(command=["bash", "--norc", "-i"], environ={"PS1": "prompt ", "HISTFILE": ""}) as terminal:
        terminal.read(lambda output: "prompt " in output)
        terminal.type(f"{watch}\n")
        terminal.read(lambda output: "\x1b[?1049h" in output and "live" in _plain(output))
        terminal.type("\x1a")
        terminal.read(lambda output: "Stopped" in output)
        stopped = terminal.output.index("Stopped")
        assert terminal.output.rfind("\x1b[?1049l") > terminal.output.rfind("\x1b[?1049h", 0, stopped)
        terminal.type("echo e''choed\n")
        terminal.read(lambda output: "echoed" in output[stopped:])
        at = len(terminal.output)
        terminal.type("fg\n")
        terminal.read(lambda output: "\x1b[?1049h" in output[at:] and "live" in _plain(output[at:]))
        terminal.type("q")
        terminal.read(lambda output: output.rstrip().endswith("prompt"))
        terminal.type("stty -a; exit\n")
        terminal.wait()
        assert " icanon" in terminal.output
        assert " echo " in terminal.output


def test_where_nobody_could_wake_it_ctrl_z_does_nothing(demo_port: int) -> None:
    with open_terminal("watch", "bitcoinprice", "--url", _url(demo_port)) as terminal:
        terminal.read(lambda output: "live" in _plain(output))
        terminal.type("\x1a")
        terminal.read(lambda output: output.count("\x1b[?1049h") > 1)
        terminal.type("q")
        assert terminal.wait() == 0
        assert terminal.is_as_before()


def test_without_a_keyboard_it_is_drawn_all_the_same(demo_port: int) -> None:
    with open_terminal("watch", "bitcoinprice", "--url", _url(demo_port), keyboard=False) as terminal:
        terminal.read(lambda output: "live" in _plain(output))
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.wait() == 0
        assert terminal.is_as_before()


def test_a_closed_pipe_ends_it_cleanly(demo_port: int, tmp_path: Path) -> None:
    code, errors = tmp_path / "code", tmp_path / "errors"
    watch = f"{sys.executable} -m daemon watch --json --url {_url(demo_port)}"
    began_s = time.monotonic()
    pipe = f"{{ {watch} 2>{errors}; echo $? >{code}; }} | head -3"
    printed = subprocess.run(["sh", "-c", pipe], capture_output=True, text=True, check=True, timeout=SOON_S)
    assert [json.loads(line)["type"] for line in printed.stdout.splitlines()] == ["status"] * 3
    remark = "tickerd: simulated venues: no price here is a real one\n"
    assert (code.read_text(), errors.read_text(), printed.stderr) == ("0\n", remark, "")
    assert time.monotonic() - began_s < 5


def test_a_pipe_that_is_closed_while_nothing_comes_ends_it_too() -> None:
    with _scripted(_status()) as port:
        process = subprocess.Popen([*TICKERD, "watch", "--url", _url(port)], stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["channel"] == "x"
        process.stdout.close()
        assert process.wait(SOON_S) == 0


def test_ctrl_c_ends_it_while_nobody_reads_the_pipe() -> None:
    with _scripted(_status("down", "x" * 500_000)) as port:
        process = subprocess.Popen([*TICKERD, "watch", "--url", _url(port)], stdout=subprocess.PIPE)
        with process:
            assert process.stdout is not None
            assert select.select([process.stdout], [], [], SOON_S)[0]
            process.send_signal(signal.SIGINT)
            assert process.wait(SOON_S) == 0


def test_json_lines_are_the_daemons_own_bytes(demo_port: int, tmp_path: Path) -> None:
    target = tmp_path / "lines"
    with target.open("w") as file:  # an ordinary file cannot be waited for
        process = subprocess.Popen([*TICKERD, "watch", "bitcoinprice", "--url", _url(demo_port)], stdout=file)
        deadline = time.monotonic() + SOON_S
        while target.read_text().count("\n") < 4 and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        assert process.wait(SOON_S) == 0
    lines = target.read_text().splitlines()
    assert json.loads(lines[0])["type"] == "status"
    for line in lines[1:]:
        digits = re.search(r'"price":([0-9.]+)', line)
        assert digits is not None
        assert json.loads(line)["data"]["last"] == digits[1], "the price has lost the venue's digits"


def test_nothing_from_the_network_steers_the_terminal() -> None:
    evil = "\x1b]0;owned\x07 [red]not markup[/red] \u202e"
    with _scripted(_status("down", evil)) as port:
        with open_terminal("watch", "x", "--url", _url(port)) as terminal:
            terminal.read(lambda output: "not markup" in output)
            assert r"\x1b]0;owned\x07 [red]not markup[/red] \u202e" in _plain(terminal.output)
            assert "\x1b]0;" not in terminal.output
            assert r"9\x1b[31m" in terminal.output
            terminal.type("\x03")
            assert terminal.wait() == 0
        with open_terminal("watch", "--json", "--url", _url(port)) as terminal:
            terminal.read(lambda output: "not markup" in output)
            assert json.loads(terminal.output)["reason"] == evil
            assert "\x1b" not in terminal.output
            assert "\u202e" not in terminal.output


def test_a_lost_connection_is_shown_and_told() -> None:
    with _scripted(_status(), lasts_s=0.3) as port:
        with open_terminal("watch", "x", "--url", _url(port)) as terminal:
            terminal.read(lambda output: "reconnecting in" in _plain(output))
            terminal.read(lambda output: "resumed after" in _plain(output))
            terminal.type("\x03")
            assert terminal.wait() == 0
            assert terminal.is_as_before()
        with subprocess.Popen(
            [*TICKERD, "watch", "--url", _url(port)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stderr is not None
            assert re.match(r"tickerd: reconnecting in \d+\.\d s: closed with 1000", process.stderr.readline())
            process.send_signal(signal.SIGINT)
            assert process.wait(SOON_S) == 0


def test_channels_and_ping(demo_port: int) -> None:
    table = _run("channels", "--url", f"http://{_url(demo_port)}")
    assert (table.returncode, table.stderr) == (0, "")
    assert re.search(r"^bitcoinprice +okx +ticker +BTC/USDT +push +live +[0-9.]+ s$", table.stdout, re.MULTILINE)
    assert re.search(r"^coingecko_global .* whole market ", table.stdout, re.MULTILINE)
    lines = _run("channels", "--json", "--url", _url(demo_port)).stdout.splitlines()
    assert [json.loads(line)["name"] for line in lines] == [line.split()[0] for line in table.stdout.splitlines()[1:]]
    pings = _run("ping", "--count", "2", "--url", _url(demo_port))
    assert (pings.returncode, pings.stderr) == (0, "")
    [who, first, second, summary] = pings.stdout.splitlines()
    assert who.startswith(f"ws://{_url(demo_port)}/ws is tickerd ")
    for line in (first, second):
        assert re.fullmatch(r"round trip \d+\.\d\d ms, its clock is \d+\.\d ms (ahead|behind)", line)
    assert summary.startswith("2 answered; round trip: least ")


@pytest.mark.parametrize("command", ["watch", "channels", "ping"])
def test_a_daemon_that_is_not_there_is_one_line(command: str) -> None:
    ended = _run(command, "--url", "127.0.0.1:1")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == (
        "tickerd: 127.0.0.1:1: no connection to 127.0.0.1: Connection refused; nothing listens there: "
        "`tickerd run` and `tickerd demo` start a daemon, --url names another one\n"
    )


def test_other_mistakes_are_one_line_too(demo_port: int, tmp_path: Path) -> None:
    url = ("--url", _url(demo_port))
    for arguments, code, said in (
        (("watch", "bitcoinpric", *url), 1, "unknown channel: 'bitcoinpric' (nearest: bitcoinprice"),
        (("watch", "--url", f"{_url(demo_port)}/wss"), 1, f"{_url(demo_port)}/wss answered with HTTP 404: "),
        (("ping", "--url", "ftp://127.0.0.1"), 2, "--url: 'ftp://127.0.0.1/ws' must begin with"),
        (("ping", *url, "--token-file", str(tmp_path / "none")), 1, "cannot be read: No such file"),
        (("watch", *url, "--instrument", "BTC/USTD"), 1, "--instrument: 'BTC/USTD'; allowed: BTC/USD, BTC/USDT"),
        (("watch", *url, "--kind", "book"), 2, "--kind book: got 0 instruments; allowed: one --instrument of BTC/USD"),
        (("watch", *url, "--kind", "trades", "bitcoinprice"), 1, "--kind trades: bitcoinprice has none; allowed: "),
        (("watch", *url, "--interval", "1"), 2, "--interval: got '1'; allowed: a whole number from 50 to 3600000"),
    ):
        ended = _run(*arguments)
        assert (ended.returncode, ended.stdout) == (code, ""), ended.stderr
        assert ended.stderr.startswith("tickerd: ")
        assert said in ended.stderr
        assert ended.stderr.count("\n") == 1
    with open_terminal("watch", "bitcoinpric", *url) as terminal:
        assert terminal.wait() == 1
        assert "nearest: bitcoinprice" in _plain(terminal.output)
        assert "\x1b[?25l" not in terminal.output


def test_the_token_comes_from_a_file_or_from_the_environment(tmp_path: Path) -> None:
    right, wrong = tmp_path / "right", tmp_path / "wrong"
    right.write_text("s3cret\n")
    wrong.write_text("guess\n")
    with _scripted(token="s3cret") as port:
        ping = ("ping", "--count", "1", "--url", _url(port))
        assert _run(*ping, TICKERD_TOKEN="s3cret").returncode == 0
        assert _run(*ping, "--token-file", str(right), TICKERD_TOKEN="guess").returncode == 0
        refused = _run(*ping, "--token-file", str(wrong))
        assert (refused.returncode, refused.stdout) == (1, "")
        assert refused.stderr == f"tickerd: {_url(port)}/ws answered with HTTP 401\n"
        assert "s3cret" not in refused.stderr


def test_the_daemon_does_not_take_the_token_for_a_setting(tmp_path: Path) -> None:
    config = tmp_path / "tickerd.toml"
    config.write_text("")
    assert _run("check", str(config), TICKERD_TOKEN="s3cret").returncode == 0


@pytest.mark.parametrize("term", ["dumb", "unknown", "", None])
def test_a_terminal_that_cannot_move_its_cursor_gets_lines(demo_port: int, term: str | None) -> None:
    with open_terminal("watch", "bitcoinprice", "--url", _url(demo_port), term=term) as terminal:
        terminal.read(lambda output: output.count("bitcoinprice BTC/USDT ") >= 3 and "bitcoinprice is live" in output)
        terminal.type("\x03")
        assert terminal.wait() == 0
    assert "\x1b" not in terminal.output


def test_a_small_window_shows_whole_prices_also_after_it_was_made_smaller(demo_port: int) -> None:
    with open_terminal("watch", "bitcoinprice", "--url", _url(demo_port), columns=100, lines=20) as terminal:
        terminal.read(lambda output: "bitcoinprice" in output)
        fcntl.ioctl(terminal._slave, termios.TIOCSWINSZ, struct.pack("HHHH", 5, 20, 0, 0))
        before = len(terminal.output)
        terminal.read(lambda output: re.search(r"BTC/USDT +\d{4,}", _plain(output[before:])) is not None)
        terminal.type("\x03")
        assert terminal.wait() == 0
