"""systemd's own tools, for the tests that need one."""

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
