"""What a worker's process inherits, and that it ends with its parent."""

import os
import subprocess
import sys
from pathlib import Path

from daemon.workers.spawn import environment

ROOT = Path(__file__).resolve().parents[3]


def test_a_worker_sees_neither_the_configuration_nor_what_systemd_gave_its_parent() -> None:
    environ = {
        "PATH": "/bin",
        "JOURNAL_STREAM": "8:1",
        "PYTHONFAULTHANDLER": "1",
        "TICKERD_CONNECTORS__COINGECKO__API_KEY": "secret",
        "tickerd_server__port": "1",
        "NOTIFY_SOCKET": "/run/notify",
        "WATCHDOG_USEC": "1",
        "WATCHDOG_PID": "1",
        "LISTEN_FDS": "1",
        "LISTEN_PID": "1",
        "CREDENTIALS_DIRECTORY": "/run/credentials",
    }
    kept = {"PATH": "/bin", "JOURNAL_STREAM": "8:1", "PYTHONFAULTHANDLER": "1"}
    assert environment(environ, "/usr/bin") == kept
    assert environment(environ, str(ROOT)) == {**kept, "PYTHONPATH": str(ROOT)}, "a checkout has workers of its own"
    assert environment({"PYTHONPATH": "/else"}, str(ROOT)) == {"PYTHONPATH": f"{ROOT}{os.pathsep}/else"}


BUSY = """
import sys
from daemon.workers.lifeline import hold
print(hold(int(sys.argv[1])), flush=True)
while True:
    pass
"""


def test_a_process_that_hangs_ends_with_its_parents_lifeline() -> None:
    reading, writing = os.pipe()
    with subprocess.Popen(
        [sys.executable, "-c", BUSY, str(reading)], cwd=ROOT, pass_fds=(reading,), stdout=subprocess.PIPE, text=True
    ) as process:
        os.close(reading)
        assert process.stdout is not None
        assert process.stdout.readline() == "True\n"
        assert process.poll() is None
        os.close(writing)
        assert process.wait(10) < 0


def test_a_lifeline_that_has_ended_already_is_noticed() -> None:
    reading, writing = os.pipe()
    os.close(writing)
    with subprocess.Popen(
        [sys.executable, "-c", BUSY.replace("while True:\n    pass", ""), str(reading)],
        cwd=ROOT,
        pass_fds=(reading,),
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        os.close(reading)
        assert process.stdout is not None
        assert process.stdout.read() == "False\n"
