"""The configuration reference: every key with its default, what is allowed and what it does, made from the code.

Defaults and ranges are those of the components' settings; the words are those of the example configuration, or of the
settings' docstrings. `make pages` writes systemd/CONFIGURATION.md.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, get_args

import msgspec

from daemon.config import reader
from daemon.config.settings import File

_KEY: Final = re.compile(r"#([a-z_0-9]+) = (?:.*  # (.*))?")
_SECTION: Final = re.compile(r"#\[([a-z_0-9.]+)\]")
_ATTRIBUTE: Final = re.compile(r"^    (\w+): ((?:.|\n {8})+)", re.MULTILINE)
_EXAMPLE: Final = "    "

_HEAD: Final = """# Configuration

Every key, with its default and what is allowed. This page is made from the code and from the comments of
[tickerd.toml](tickerd.toml) by `make pages`: change those. A file needs only what differs from the defaults.
`tickerd check FILE` looks it over: each mistake is a line with the key, the value and what is allowed. The environment
wins over the file: `TICKERD_SERVER__PORT=9000` is `port` of `[server]`, and so for every key; systemd's credentials,
where a key names one, stand between the two, and `tickerd run --host --port` wins over all. Units are in the names:
`_s` seconds, `_ms` milliseconds, `_bytes`.
"""


class _Words:
    """What the example configuration says: of each section, and of each key (`section.key`)."""

    def __init__(self, text: str) -> None:
        self.sections: dict[str, list[str]] = {}
        self.keys: dict[str, list[str]] = {}
        told: list[str] = []
        section = ""
        for line in text.splitlines():
            if found := _SECTION.fullmatch(line):
                section = found[1]
                self.sections[section], told = told, []
            elif found := _KEY.match(line):
                self.keys[f"{section}.{found[1]}"], told = [*told, *([found[2]] if found[2] else [])], []
            elif line.startswith("# ") or line == "#":
                told.append(line[2:])
            elif not line:
                if any("[tokens." in each for each in told):
                    self.sections["tokens"] = told
                told = []


def page(example: str) -> str:
    """The reference as Markdown, where that is the text of the example configuration."""
    return "\n".join([_HEAD, *_chapters(example)]).rstrip() + "\n"


def _chapters(example: str) -> Iterator[str]:
    words = _Words(example)
    for field in msgspec.structs.fields(File):
        name = field.encode_name
        if reader.is_named(field.type):
            inner = get_args(field.type)[1]
            first = next((each for each in words.sections if each == name or each.startswith(f"{name}.")), "")
            yield from _chapter(f"{name}.NAME", words.sections.get(first, []), inner, words.keys)
        elif any(reader.is_table(each.type) for each in msgspec.structs.fields(field.type)):
            for each in msgspec.structs.fields(field.type):
                title = f"{name}.{each.encode_name}"
                yield from _chapter(title, words.sections.get(title, []), each.type, words.keys)
        else:
            yield from _chapter(name, words.sections.get(name, []), field.type, words.keys)


def _chapter(
    title: str, prose: list[str], struct: type[msgspec.Struct], keys: Mapping[str, list[str]]
) -> Iterator[str]:
    yield f"## [{title}]\n"
    yield from _paragraphs(prose)
    yield "| key | default | allowed | what it does |"
    yield "|---|---|---|---|"
    attributes = _attributes(struct)
    for field in msgspec.structs.fields(struct):
        key = field.encode_name
        told = " ".join(keys.get(f"{title}.{key}") or [attributes.get(key, "")])
        told = f"{told[:1].upper()}{told[1:]}"
        default = "" if field.default is None else f"`{_cell(reader.shown(_plain(field.default)))}`"
        yield f"| `{key}` | {default} | {_cell(reader.allowed(field.type))} | {_cell(told)} |"
    yield ""


def _plain(default: object) -> object:
    """A default as TOML would have it."""
    return list(default) if isinstance(default, tuple | frozenset) else default


def _paragraphs(prose: list[str]) -> Iterator[str]:
    """The words of a section; what is indented is an example."""
    fenced = False
    for line in prose:
        if line.startswith(_EXAMPLE) != fenced and line:
            yield "```" if fenced else "```toml"
            fenced = not fenced
        yield line.removeprefix(_EXAMPLE) if fenced else line
    if fenced:
        yield "```"
    if prose:
        yield ""


def _attributes(struct: type[msgspec.Struct]) -> dict[str, str]:
    """What the docstrings of a Struct and its bases say of its fields."""
    found: dict[str, str] = {}
    for base in reversed(struct.__mro__):
        told = inspect.getdoc(base) if issubclass(base, msgspec.Struct) and base is not msgspec.Struct else None
        _, _, attributes = (told or "").partition("Attributes:\n")
        found |= {name: " ".join(words.split()) for name, words in _ATTRIBUTE.findall(attributes)}
    return found


def _cell(text: str) -> str:
    return text.replace("|", "\\|").strip()


if __name__ == "__main__":
    example = Path(__file__).resolve().parents[2] / "systemd" / "tickerd.toml"
    sys.stdout.write(page(example.read_text(encoding="utf-8")))
