"""Fenced blocks of a Markdown file, so that what a reader copies is what the tests run."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent

_FENCE = re.compile(r"^```(?P<info>[^\n`]+)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(text: str) -> list[tuple[str, str]]:
    """Each block's info string (`python connectors/example.py`) and what is in it, in order."""
    return [(found["info"].strip(), found["body"]) for found in _FENCE.finditer(text)]


def section(file: str, heading: str) -> str:
    """What stands under a heading (with its `#`), up to the next of its level."""
    text = (ROOT / file).read_text()
    level = heading.split()[0]
    _, mark, rest = text.partition(f"\n{heading}\n")
    assert mark, f"{file} has no section {heading!r}"
    return re.split(rf"^{level} ", rest, maxsplit=1, flags=re.MULTILINE)[0]


def only(file: str, heading: str, info: str) -> str:
    """The one block of that kind in a section."""
    [body] = [body for seen, body in blocks(section(file, heading)) if seen == info]
    return body


def replaced(text: str, *changes: tuple[str, str]) -> str:
    """The text with each of these put in another's place; each must be there exactly once."""
    for old, new in changes:
        assert text.count(old) == 1, f"{old!r} is there {text.count(old)} times"
        text = text.replace(old, new)
    return text
