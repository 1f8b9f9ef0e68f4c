"""systemd's own tools, for the tests that need one, and what systemd itself does."""

import os
import shutil

import pytest


def systemd_tool(name: str) -> str:
    """The tool's path. Without it the test is skipped; `TICKERD_REQUIRE_SYSTEMD=1` makes its absence an error."""
    path = shutil.which(name)
    if path is None:
        absent = f"no {name} here; Debian and Ubuntu have it: apt-get install systemd"
        if os.environ.get("TICKERD_REQUIRE_SYSTEMD"):
            pytest.fail(absent)
        pytest.skip(absent)
    return path


PASS_ON = """
import os, sys
held, *command = sys.argv[1:]
os.dup2(int(held), 3, inheritable=True)
if held != "3":
    os.close(int(held))
os.environ.update(LISTEN_FDS="1", LISTEN_FDNAMES="tickerd", LISTEN_PID=str(os.getpid()))
os.execv(sys.executable, [sys.executable, "-m", "daemon", *command])
"""
"""What systemd does between fork and exec: a listener's descriptor, then tickerd's command."""
