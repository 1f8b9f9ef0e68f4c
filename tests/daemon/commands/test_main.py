"""The command line: exit codes, one clear line for a mistake, and the commands as real processes."""

import errno
import http.client
import io
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from connectors.simulator.simulator import SIMULATED
from connectors.venues.registry import BINANCE, COINGECKO, OKX, VENUES
from daemon import app
from daemon.__main__ import main, version
from daemon.commands import demo
from daemon.config.load import Config, load, parse
from daemon.config.presets import preset_channels
from daemon.config.tokens import grants
from daemon.front.access import granted
from daemon.front.listening import ServerSettings
from daemon.front.tokens import Presented

ROOT = Path(__file__).resolve().parents[3]
DEADLINE_S = 20


@pytest.fixture(autouse=True)
def no_overrides(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.upper().startswith("TICKERD_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def complaint(capfd: pytest.CaptureFixture[str]) -> Callable[[], str]:
    """What was said on standard error: exactly one line that says whose it is."""

    def read() -> str:
        text = capfd.readouterr().err
        assert text.startswith("tickerd: ")
        assert text.count("\n") == 1
        return text.removeprefix("tickerd: ").removesuffix("\n")

    return read


# Words only.


def test_help_has_examples_for_every_command(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    whole = capfd.readouterr().out
    for command in ("run", "demo", "simulate", "rehearse", "check", "token"):
        assert f"\n  tickerd {command}" in whole
        assert main([command, "--help"]) == 0
        assert f"examples:\n  tickerd {command}" in capfd.readouterr().out


def test_the_help_of_the_simulated_venues_names_each(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", "--help"]) == 0
    about = capfd.readouterr().out.split("options:")[0]
    assert [name for name in SIMULATED if VENUES[name].title not in about] == []


def test_the_version_is_told_without_loading_the_daemon() -> None:
    code = (
        "import sys; from daemon.__main__ import main; status = main(['--version']); "
        "sys.exit(status or any(name in sys.modules for name in ('trio', 'msgspec', 'httpx')))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("tickerd ")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "COMMAND"),
        (["rnu"], "'rnu'"),
        (["run", "--prot", "1"], "--prot"),
        (["demo", "--port", "70000"], "--port: got '70000'; allowed: a whole number from 0 to 65535"),
        (["demo", "--port", "-1"], "--port"),
        (["run", "--port", "70000"], "--port: got '70000'; allowed: a whole number from 0 to 65535"),
        (["watch", "--kind", "prices"], "--kind: invalid choice: 'prices'"),
        (["watch", "--interval", "fast"], "--interval: got 'fast'; allowed: a whole number from 50 to 3600000"),
        (["simulate", "--port", "eighty"], "--port: got 'eighty'"),
        (["simulate", "--seed", "x"], "--seed"),
        (["simulate", "--okx-rate", "0"], "--okx-rate: got '0'; allowed: a number over 0"),
        (["simulate", "--okx-rate", "nan"], "--okx-rate"),
        (["simulate", "--cache-s", "0"], "--cache-s: got '0'; allowed: a whole number from 1 to 3600"),
        (["rehearse", "--jobs", "0"], "--jobs: got '0'; allowed: a whole number from 1 to 3600"),
        (["rehearse", "--only", "rain"], "--only: got rain; allowed: silence, mute"),
        (["simulate", "--okx-rate", "fast"], "--okx-rate"),
        (["check"], "FILE"),
        (["check", "a", "two\nlines"], "two lines"),
    ],
)
def test_a_wrong_command_line_is_told_in_one_line(
    arguments: list[str], words: str, complaint: Callable[[], str]
) -> None:
    assert main(arguments) == 2
    line = complaint()
    assert words in line
    assert line.endswith(" --help")


# Configuration.


def test_check_says_that_a_file_is_in_order(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "tickerd.toml"
    file.write_text("[channels.solprice]\nconnector = 'okx'\ninstrument = 'SOL/USDT'\n")
    assert main(["check", str(file)]) == 0
    assert capfd.readouterr() == (f"{file}: ok, 9 channels\n", "")


def test_check_says_that_nobody_is_let_in(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "tickerd.toml"
    file.write_text("[tokens]\n")
    assert main(["check", str(file)]) == 0
    ok, closed = capfd.readouterr().out.splitlines()
    assert ok == f"{file}: ok, 8 channels"
    assert closed.startswith(f"{file}: nobody is let in: no token is in force.")
    file.write_text("[tokens]\n[server]\nopen = true\n")
    assert main(["check", str(file)]) == 0
    assert capfd.readouterr().out == f"{file}: ok, 8 channels\n"


def test_check_names_variables_that_are_passed_over(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "tickerd.toml"
    file.touch()
    monkeypatch.setenv("TICKERD_PORT", "tcp://10.0.0.7:8000")
    assert main(["check", str(file)]) == 0
    ok, warning = capfd.readouterr().out.splitlines()
    assert ok == f"{file}: ok, 8 channels"
    assert warning.startswith(f"{file}: passed over TICKERD_PORT: Kubernetes and Docker write ")


def test_check_says_which_venue_is_reached_through_a_proxy(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "tickerd.toml"
    file.write_text("[connectors.okx]\nproxy = 'socks5h://user:hush@10.0.0.7'\n[connectors.binance]\nproxy = ''\n")
    monkeypatch.setenv("https_proxy", "http://user:hush@proxy.example.net:3128")
    monkeypatch.setenv("no_proxy", "api.coingecko.com")
    assert main(["check", str(file)]) == 0
    ok, way = capfd.readouterr().out.splitlines()
    assert ok == f"{file}: ok, 8 channels"
    assert way == f"{file}: OKX is reached through the proxy socks5h://10.0.0.7:1080 (connectors.okx.proxy)"
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setenv("https_proxy", "socks4://user:hush@10.0.0.7")
    assert main(["check", str(file)]) == 78
    assert capfd.readouterr().out.startswith('https_proxy: got "socks4://***@10.0.0.7"; allowed: http://, ')


def test_check_tells_every_mistake_one_a_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "tickerd.toml"
    file.write_text("[server]\nport = 70000\nhots = 'x'\n")
    assert main(["check", str(file)]) == 78
    assert capfd.readouterr().out.splitlines() == [
        "server.hots: unknown key; nearest is server.host",
        "server.port: got 70000; allowed: a whole number from 0 to 65535",
    ]


def test_a_token_is_printed_once_with_what_the_configuration_has_to_say(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["token", "partner"]) == 0
    said, errors = capfd.readouterr()
    assert errors == ""
    token, _, lines = said.partition("\n")
    assert re.fullmatch("tkd_[A-Za-z0-9_-]{43}", token)
    assert token not in lines
    file = tmp_path / "tickerd.toml"
    file.write_text(lines)
    assert main(["check", str(file)]) == 0
    [grant] = grants(load(file, {}).tokens)
    assert (grant.name, grant.patterns) == ("partner", ("*",))
    assert granted(Presented((f"Bearer {token}",)), (grant,)) == grant
    capfd.readouterr()
    assert main(["token"]) == 0
    other = capfd.readouterr().out
    assert "[tokens.client]" in other
    assert token not in other


def test_a_token_that_is_given_as_its_name_is_not_repeated(complaint: Callable[[], str]) -> None:
    token = "tkd_" + "x" * 43
    assert main(["token", token]) == 2
    assert token not in complaint()


def test_a_name_that_is_no_text_can_be_told(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "\udcff.toml"]) == 78
    assert capfd.readouterr().out == "\\udcff.toml: cannot be read: No such file or directory\n"


def test_run_refuses_a_configuration_with_a_line_for_each_mistake(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "tickerd.toml"
    file.write_text("[server]\nport = 70000\n")
    monkeypatch.setenv("TICKERD_LOG__LEVEL", "loud")
    assert main(["run", "--config", str(file)]) == 78
    lines = capfd.readouterr().err.splitlines()
    assert [line.split(" ")[:2] for line in lines] == [["tickerd:", "server.port:"], ["tickerd:", "log.level"]]


def test_run_refuses_a_file_that_is_not_there(tmp_path: Path, complaint: Callable[[], str]) -> None:
    assert main(["run", "--config", str(tmp_path / "no.toml")]) == 78
    assert complaint() == f"{tmp_path}/no.toml: cannot be read: No such file or directory"


# What shows only when the daemon starts.


def failing(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    async def serve(config: Config, *, announce: Callable[[Sequence[str]], None], reread: Callable[[], Config]) -> int:
        raise error

    monkeypatch.setattr(app, "serve", serve)


IN_USE = OSError(errno.EADDRINUSE, "Address already in use", "127.0.0.1 port 8000")


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (IN_USE, 1, "127.0.0.1 port 8000 is in use; choose another with --port, [server] port or TICKERD_SERVER__PORT"),
        (BaseExceptionGroup("", [BaseExceptionGroup("", [IN_USE])]), 1, "127.0.0.1 port 8000 is in use; "),
        (
            OSError(errno.EACCES, "Permission denied", "::1 port 80"),
            1,
            "cannot listen on ::1 port 80: Permission denied",
        ),
        (ssl.SSLError(1, "bad PEM"), 78, "server.certificate, server.key: cannot be used: bad PEM"),
        (PermissionError(errno.EACCES, "Permission denied"), 78, "server.key: cannot be used: Permission denied"),
    ],
)
def test_what_a_user_can_mend_is_one_line(
    error: BaseException, status: int, words: str, monkeypatch: pytest.MonkeyPatch, complaint: Callable[[], str]
) -> None:
    failing(monkeypatch, error)
    assert main(["run"]) == status
    assert words in complaint()


@pytest.mark.parametrize(
    "error", [OSError(errno.EIO, "I/O error"), RuntimeError("bug"), ExceptionGroup("", [IN_USE] * 2)]
)
def test_anything_else_keeps_its_traceback(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, error)
    with pytest.raises(type(error)) as raised:
        main(["run"])
    assert raised.value is error


def test_an_interrupt_before_the_daemon_listens_to_signals_is_quiet(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    failing(monkeypatch, BaseExceptionGroup("", [KeyboardInterrupt()]))
    assert main(["run"]) == 130
    assert capfd.readouterr().err == ""


def test_run_hands_the_configuration_over_and_prints_the_addresses(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    async def serve(config: Config, *, announce: Callable[[Sequence[str]], None], reread: Callable[[], Config]) -> int:
        announce([f"http://127.0.0.1:{config.server.port}", "http://[::1]:9"])
        return 3

    monkeypatch.setattr(app, "serve", serve)
    monkeypatch.setenv("TICKERD_SERVER__PORT", "7")
    assert main(["run"]) == 3
    assert capfd.readouterr().out == "listening on http://127.0.0.1:7\nlistening on http://[::1]:9\n"
    assert main(["run", "--port", "8"]) == 3
    assert capfd.readouterr().out == "listening on http://127.0.0.1:8\nlistening on http://[::1]:9\n"


def test_a_wrong_address_on_the_command_line_is_one_line(complaint: Callable[[], str]) -> None:
    assert main(["run", "--host", "nowhere"]) == 78
    assert complaint().startswith('server.host (from --host): got "nowhere"; allowed: "localhost", an IP address')


# The demo's configuration and words.


def test_the_demo_asks_simulated_venues_and_ticks_fast() -> None:
    environ = {
        "TICKERD_CONNECTORS__OKX__URL": "wss://ws.okx.com/ws/v5/public",
        "TICKERD_LIMITS__GRACE_S": "1",
        "TICKERD_SERVER__PORT": "9000",
    }
    config = demo.demo_config(1234, environ, None)
    venues = config.connectors
    urls = (venues.of(BINANCE).base_url, venues.of(OKX).url, venues.of(COINGECKO).base_url)
    assert all("//127.0.0.1:1234" in url for url in urls)
    assert venues.of(COINGECKO).plan == "unlimited"
    assert {channel.cadence_s for channel in config.channels} == {2.0, None}
    assert {channel.name for channel in config.channels} == preset_channels(demo.presets()).keys()
    assert "seed" in demo.presets()
    assert config.simulated
    assert (config.limits.grace_s, config.server.port) == (1.0, 9000)
    assert config.log.level == "warning", "its own words stay on the screen"
    assert demo.demo_config(1234, {"TICKERD_LOG__LEVEL": "info"}, None).log.level == "info"
    assert demo.demo_config(1234, environ, 0).server.port == 0
    assert demo.demo_config(1234, {}, None).server.port == 8000


@pytest.mark.parametrize(
    ("host", "netloc"),
    [("127.0.0.1", "127.0.0.1:81"), ("::1", "[::1]:81"), ("localhost", "localhost:81")],
)
def test_the_configuration_points_all_venues_at_the_simulator(host: str, netloc: str) -> None:
    tables = tomllib.loads(demo.simulator_config(host, 81))["connectors"]
    assert tables.keys() == {name for name, venue in VENUES.items() if not venue.is_derived}
    assert tables["binance"] == {"base_url": f"http://{netloc}", "stream_url": f"ws://{netloc}"}
    assert tables["okx"] == {
        "url": f"ws://{netloc}/ws/v5/public",
        "business_url": f"ws://{netloc}/ws/v5/business",
    }
    assert tables["kraken"] == {"url": f"ws://{netloc}/v2"}
    assert tables["coingecko"] == {"base_url": f"http://{netloc}/api/v3"}
    assert [name for name in tables if name not in SIMULATED and tables[name] != {"enabled": False}] == []


def test_a_venue_that_is_not_simulated_is_not_asked_in_the_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(SIMULATED, "okx")
    config = demo.demo_config(1234, {}, None)
    assert not config.connectors.of(OKX).enabled
    assert {channel.exchange for channel in config.channels} - {"market"} == {*SIMULATED}


@pytest.mark.parametrize(
    ("host", "urls", "websocket"),
    [
        ("localhost", ["http://127.0.0.1:8000", "http://[::1]:8000"], "ws://localhost:8000/ws"),
        ("localhost", ["http://127.0.0.1:8000"], "ws://localhost:8000/ws"),
        ("::1", ["http://[::1]:8000"], "ws://[::1]:8000/ws"),
        ("localhost", ["https://127.0.0.1:8443"], "wss://localhost:8443/ws"),
    ],
)
def test_the_demo_names_the_address_of_the_seed(host: str, urls: list[str], websocket: str) -> None:
    words = demo.introduction(ServerSettings(host=host), urls)
    assert f"websocket  {websocket}\n" in words
    assert demo.one_liner(websocket) in words
    assert "\n" not in demo.one_liner(websocket)
    assert f"curl -N '{websocket.replace('ws', 'http', 1).removesuffix('/ws')}/events?channels=bitcoinprice'" in words


def test_the_line_to_try_is_the_program_as_it_was_called(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "bin dir" / "tickerd"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    watching = " watch --json bitcoinprice --url ws://h:1/ws | head -5"
    monkeypatch.setattr(sys, "argv", [str(program), "demo"])
    assert demo.one_liner("ws://h:1/ws") == f"'{program}'{watching}"
    monkeypatch.setenv("PATH", str(program.parent))
    assert demo.one_liner("ws://h:1/ws") == f"tickerd{watching}"
    monkeypatch.setattr(sys, "argv", ["/somewhere/daemon/__main__.py", "demo"])
    assert demo.one_liner("ws://[::1]:1/ws").endswith(
        " -m daemon watch --json bitcoinprice --url 'ws://[::1]:1/ws' | head -5"
    )


# Real processes.


@contextmanager
def tickerd(*arguments: str, **environ: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "daemon", *arguments],
        cwd=ROOT,
        env=os.environ | environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def listening(process: subprocess.Popen[str]) -> tuple[str, str]:
    """The base URL, once the process has named it, and what it printed before."""
    assert process.stdout is not None
    before = ""
    for line in process.stdout:
        if line.startswith("listening on "):
            return line.removeprefix("listening on ").strip(), before
        before += line
    assert process.stderr is not None
    raise AssertionError(f"it ended: {process.stderr.read()}")


def get(url: str, path: str) -> bytes:
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=DEADLINE_S)
    try:
        connection.request("GET", path)
        return connection.getresponse().read()
    finally:
        connection.close()


def end(process: subprocess.Popen[str], number: signal.Signals) -> tuple[int, str]:
    process.send_signal(number)
    _, errors = process.communicate(timeout=DEADLINE_S)
    return process.returncode, errors


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_simulate_prints_the_configuration_and_its_address_and_ends_in_order(number: signal.Signals) -> None:
    with tickerd("simulate") as process:
        url, printed = listening(process)
        config = parse(printed, {}, "printed")
        assert config.connectors.of(BINANCE).base_url == url
        assert config.connectors.of(OKX).url.startswith(url.replace("http", "ws"))
        assert b"serverTime" in get(url, "/api/v3/time")
        assert end(process, number) == (0, "")


def test_simulate_writes_the_configuration_before_it_says_that_it_listens(tmp_path: Path) -> None:
    file = tmp_path / "venues.toml"
    file.write_text("of an earlier run")
    with tickerd("simulate", "--config-out", str(file), "--seed", "7", "--okx-rate", "50", "--stamp") as process:
        url, printed = listening(process)
        assert load(file, {}).connectors.of(BINANCE).base_url == url
        assert load(file, {}).simulated, "the clients of a daemon for these venues are told"
        assert printed == ""
        assert list(tmp_path.iterdir()) == [file]
        assert end(process, signal.SIGTERM) == (0, "")


def test_simulate_cannot_write_into_nowhere(tmp_path: Path, complaint: Callable[[], str]) -> None:
    assert main(["simulate", "--config-out", str(tmp_path / "no" / "venues.toml")]) == 1
    assert complaint() == f"{tmp_path}/no/venues.toml: cannot be written: No such file or directory"


def test_simulate_names_a_recording_that_is_none(tmp_path: Path, complaint: Callable[[], str]) -> None:
    assert main(["simulate", "--recorded", str(tmp_path / "no")]) == 1
    assert str(tmp_path / "no") in complaint()


def test_simulate_names_every_mistake_of_a_scenario(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "faults.toml"
    file.write_text('[[step]]\nat_s = 4\nfault = "disconect"\n[[step]]\nfault = "silence"\npongs = 3\n')
    assert main(["simulate", "--scenario", str(file)]) == 78
    assert capsys.readouterr().err.splitlines() == [
        f'tickerd: {file}: step 1: fault: got "disconect"; nearest is disconnect',
        f"tickerd: {file}: step 2: at_s: missing; allowed: seconds, from 0 to 86400",
        f"tickerd: {file}: step 2: pongs: got 3; allowed: true or false",
    ]


def test_simulate_runs_a_scenario(tmp_path: Path) -> None:
    file = tmp_path / "faults.toml"
    file.write_text('[[step]]\nat_s = 0\nfault = "content_type"\nvenue = "binance"\ncontent_type = "text/plain"\n')
    with tickerd("simulate", "--scenario", str(file)) as process:
        url, _ = listening(process)
        assert b'"content_type"' in get(url, "/control")
        assert end(process, signal.SIGTERM) == (0, "")


def test_simulate_serves_a_recording(recorded: Path) -> None:
    with tickerd("simulate", "--recorded", str(recorded)) as process:
        url, _ = listening(process)
        assert b'"BTCUSDT"' in get(url, "/api/v3/ticker/24hr?symbol=BTCUSDT")
        code, said = end(process, signal.SIGTERM)
    assert code == 0
    [line] = said.splitlines()
    assert line.endswith("left out: Coinbase's Exchange feed, which tickerd does not speak")


@pytest.mark.parametrize(
    ("command", "hint"),
    [("simulate", "--port"), ("demo", "--port"), ("run", "--port, [server] port or TICKERD_SERVER__PORT")],
)
def test_a_port_in_use_is_one_line(command: str, hint: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        arguments = [] if command == "run" else ["--port", port]
        with tickerd(command, *arguments, TICKERD_SERVER__PORT=port) as process:
            _, errors = process.communicate(timeout=DEADLINE_S)
    assert (process.returncode, errors) == (
        1,
        f"tickerd: 127.0.0.1 port {port} is in use; choose another with {hint}\n",
    )


def test_a_reader_that_has_gone_is_no_traceback() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "daemon", "--help"]
    done = subprocess.run(command, cwd=ROOT, stdout=writer, stderr=subprocess.PIPE, timeout=DEADLINE_S, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")


def test_the_demo_runs_and_its_line_to_try_shows_prices() -> None:
    with tickerd("demo", "--port", "0", "--seed", "7") as process:
        listening(process)
        assert process.stdout is not None
        line = next(line for line in process.stdout if line.startswith("try "))
        shell: dict[str, Any] = {"shell": True, "cwd": ROOT, "capture_output": True, "text": True}
        tried = subprocess.run(line.removeprefix("try").strip(), **shell, timeout=DEADLINE_S, check=False)
        assert (tried.returncode, tried.stderr) == (0, "tickerd: simulated venues: no price here is a real one\n")
        assert len(tried.stdout.splitlines()) == 5
        assert '"type":"price_update","connector_id":"bitcoinprice"' in tried.stdout
        status, errors = end(process, signal.SIGINT)
        assert status == 0
        assert "Traceback" not in errors


def test_a_line_is_written_in_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where Python does not buffer, a line of the log would come between the text and its line end."""
    pieces: list[str] = []

    class Unbuffered(io.StringIO):
        def write(self, text: str) -> int:
            pieces.append(text)
            return len(text)

    monkeypatch.setattr(sys, "stdout", Unbuffered())
    assert main(["--version"]) == 0
    assert [piece for piece in pieces if piece] == [f"tickerd {version()}\n"]
