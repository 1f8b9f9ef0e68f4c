"""The man page: as the help says, and in order for whoever formats it."""

import shutil
import subprocess
from pathlib import Path

import pytest

from daemon.commands.arguments import parser
from daemon.commands.manual import page
from daemon.commands.outline import outline

PAGE = Path(__file__).resolve().parents[3] / "systemd" / "tickerd.1"


def test_the_page_in_the_project_is_the_one_of_the_help() -> None:
    assert PAGE.read_text() == page(outline(parser("1"))), "`make pages` writes it anew"


def test_a_formatter_has_no_complaint_and_shows_every_option() -> None:
    man = shutil.which("man")
    if man is None or shutil.which("groff") is None:
        pytest.skip("man or groff is not installed")
    environ = {"PATH": "/usr/bin:/bin", "MANWIDTH": "400", "LC_ALL": "C.UTF-8"}
    done = subprocess.run(
        [man, "--warnings", "-l", str(PAGE)], env=environ, capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stderr == ""
    shown = " ".join(done.stdout.replace("\b", "").split())
    for command in outline(parser("1")):
        assert " ".join(command.description.split()) in shown or not command.name
        for argument in command.arguments:
            if argument.names != ("-h", "--help"):
                assert " ".join(argument.help.split()) in shown
