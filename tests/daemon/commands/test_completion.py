"""`tickerd completion`: scripts that the shells take, and that complete what the parser knows."""

import shutil
import subprocess
from pathlib import Path

import pytest

from daemon.commands.arguments import SHELLS, parser
from daemon.commands.completion import script
from daemon.commands.outline import outline

COMMANDS = outline(parser("1"))


def _run(*command: str, text: str = "", cwd: Path | None = None) -> str:
    done = subprocess.run(command, input=text, cwd=cwd, capture_output=True, text=True, check=False, timeout=30)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_every_command_and_option_is_in_every_script() -> None:
    assert len(COMMANDS) > 10
    for shell in SHELLS:
        written = script(shell, COMMANDS)
        for command in COMMANDS:
            assert command.name in written
            for option in command.options:
                assert all(name.lstrip("-") in written for name in option.names)


@pytest.mark.parametrize("shell", SHELLS)
def test_the_shell_takes_it(shell: str, tmp_path: Path) -> None:
    found = shutil.which(shell)
    if found is None:
        pytest.skip(f"{shell} is not installed")
    file = tmp_path / "script"
    file.write_text(script(shell, COMMANDS))
    assert _run(found, "-n", str(file)) == ""


COMPLETED = [
    ("tickerd wa", ["watch"]),
    ("tickerd run --p", ["--port"]),
    ("tickerd watch --kind ", ["book", "trades"]),
    ("tickerd watch --kind b", ["book"]),
    ("tickerd run --port ", []),
    ("tickerd run --config tick", ["tickerd two.toml", "tickerd.toml"]),
    ("tickerd check tickerd.", ["tickerd.toml"]),
    ("tickerd completion ", ["bash", "fish", "zsh"]),
    ("tickerd --vers", ["--version"]),
    ("tickerd demo zz", []),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("tickerd.toml", "tickerd two.toml", "other"):
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.parametrize(("line", "completed"), COMPLETED)
def test_bash_completes(line: str, completed: list[str], folder: Path) -> None:
    words = line.split(" ")
    typed = f"""
    {script("bash", COMMANDS)}
    COMP_WORDS=({" ".join(word or "''" for word in words)}) COMP_CWORD={len(words) - 1}
    _tickerd
    printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    assert sorted(filter(None, _run("bash", "--norc", text=typed, cwd=folder).splitlines())) == completed


@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not installed")
@pytest.mark.parametrize(("line", "completed"), COMPLETED)
def test_fish_completes(line: str, completed: list[str], folder: Path) -> None:
    (folder / "script.fish").write_text(script("fish", COMMANDS))
    told = _run("fish", "--no-config", "-c", f"source script.fish; complete -C '{line}'", cwd=folder)
    assert sorted(each.partition("\t")[0] for each in told.splitlines()) == completed
