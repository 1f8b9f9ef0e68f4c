"""The documents name files, commands and words that are there, and ARCHITECTURE.md has a place for each file."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon.commands.arguments import parser
from tests.process.fenced import blocks

ROOT = Path(__file__).resolve().parent.parent

DOCUMENTS = (
    *("ARCHITECTURE.md", "CONTRIBUTING.md", "README.md", "connectors/FAILURES.md"),
    *("protocol/CLIENTS.md", "protocol/PROTOCOL.md", "protocol/STREAM.md"),
    *("systemd/CONFIGURATION.md", "systemd/DEPLOYING.md", "systemd/TROUBLESHOOTING.md"),
)

OURS = ("connectors/", "daemon/", "protocol/", "systemd/", "tests/", ".ci/", ".packaging/")
"""What a path of the project begins with."""

FILE = re.compile(r"[\w./-]*\.(?:py|js|toml|service|socket|yml|json|html)")
"""A name in backticks that is a file's; a longer text that has one in it is no such name."""

ELSEWHERE = {
    # The program that protocol/STREAM.md shows.
    "follow.py",
    *("tickerd.toml", "client.js", "/asyncapi.json", "/client.js", "tickerd.v1.json"),
    # The worked example of CONTRIBUTING.md.
    *("connectors/venues/example/", "connectors/venues/example/tickers.py", "tests/connectors/venues/example/"),
    *("feeds.py", "example.py", "tests/connectors/venues/example/test_tickers.py"),
}
"""Names of files that are not the project's: a reader's own, what a URL ends with, a subprotocol, an example's."""


def named(document: str) -> Iterator[tuple[int, str, list[str]]]:
    """The line, each path or file name in backticks, and the folders that are named before it in that line.

    In a row of a table a folder may be named by what it is called in the one before it.

    What stands in a fenced block is not prose, and is tried out by other tests.
    """
    fenced = False
    for number, line in enumerate(document.split("\n"), 1):
        if line.startswith("```"):
            fenced = not fenced
        folders: list[str] = []
        for name in [] if fenced else re.findall(r"`([^`\s]+)`", line):
            if name.endswith("/") and (name.startswith(OURS) or (folders and line.startswith("|"))):
                inner = name if name.startswith(OURS) else f"{folders[0]}{name}"
                yield number, inner, []
                folders.append(inner)
            elif FILE.fullmatch(name):
                yield number, name, list(reversed(folders))


def missing(document: str, root: Path) -> list[str]:
    """What the document names and nobody will find."""
    return [
        f"line {number}: {name}"
        for number, name, folders in named(document)
        if name not in ELSEWHERE and not any((root / folder / name).exists() for folder in ("", *folders))
    ]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_a_document_names_no_file_that_is_not_there(document: str) -> None:
    path = ROOT / document
    beside = {each.name for each in path.parent.iterdir()}
    assert [name for name in missing(path.read_text(), ROOT) if name.rpartition(" ")[2] not in beside] == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_a_link_leads_to_a_file_and_a_chapter(document: str) -> None:
    path = ROOT / document
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        there = path.parent / file if file else path
        assert there.is_file(), target
        chapters = re.findall(r"^#+ (.+)$", there.read_text(), re.MULTILINE) if there.suffix == ".md" else []
        assert not anchor or anchor in [re.sub(r"[^\w -]", "", each).lower().replace(" ", "-") for each in chapters]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_a_command_that_is_shown_is_one(document: str) -> None:
    for info, body in blocks((ROOT / document).read_text()):
        for line in body.replace("\\\n", " ").splitlines() if info == "sh" else []:
            for part in re.split(r"&&|\||;", line.partition(" #")[0]):
                words = [word for word in shlex.split(part) if not re.fullmatch(r"\w+=.*|sudo", word)]
                if words and words[0].rpartition("/")[2] == "tickerd":
                    parser("1").parse_args(words[1:])


def test_what_troubleshooting_quotes_is_what_the_code_says() -> None:
    sources = "".join(
        " ".join(re.sub(r'"\n\s*f?"', "", path.read_text()).split())
        for package in ("connectors", "daemon")
        for path in sorted((ROOT / package).rglob("*.py"))
    )
    quotes = re.findall(r"^\|.*?`([^`]*…[^`]*)`.*?\|", (ROOT / "systemd/TROUBLESHOOTING.md").read_text(), re.MULTILINE)
    assert len(quotes) > 20
    for quote in quotes:
        for words in re.split("…|: |; ", quote):
            assert words.strip(" ;,") in sources, quote


def test_the_readme_is_five_screens() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 5 * 50


def test_a_name_that_leads_nowhere_is_found(tmp_path: Path) -> None:
    (tmp_path / "daemon").mkdir()
    (tmp_path / "daemon" / "app.py").touch()
    text = "In `daemon/` are `app.py` and `old.py`.\n```\n`gone.py`\n```\nSee `daemon/app.py`, `connectors/`, `x.toml`."
    assert missing(text, tmp_path) == ["line 1: old.py", "line 5: connectors/", "line 5: x.toml"]


def test_the_map_has_every_file_but_those_of_one_venue_or_fault() -> None:
    told = {
        path.resolve()
        for _, name, folders in named((ROOT / "ARCHITECTURE.md").read_text())
        for folder in ("", *folders)
        if (path := ROOT / folder / name).is_file()
    }
    apart = re.compile(r"connectors/(venues|simulator/venues|simulator/faults)/|daemon/commands/(rehearse|terminal)/")
    unnamed = [
        path.relative_to(ROOT).as_posix()
        for package in ("connectors", "daemon", "protocol")
        for path in sorted((ROOT / package).rglob("*.py"))
        if path.name != "__init__.py" and path.resolve() not in told and not apart.match(str(path.relative_to(ROOT)))
    ]
    assert unnamed == []
