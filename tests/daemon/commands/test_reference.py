"""systemd/CONFIGURATION.md: as the code says, every key, and words for what the example has words for."""

import re
from pathlib import Path

from daemon.commands.reference import page
from daemon.config import reader
from daemon.config.settings import File

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "systemd" / "CONFIGURATION.md").read_text()


def test_the_page_in_the_project_is_the_one_of_the_code() -> None:
    example = (ROOT / "systemd" / "tickerd.toml").read_text()
    assert page(example) == PAGE, "`make pages` writes it anew"


def _rows() -> dict[str, list[str]]:
    """Default, what is allowed, and what it does, by key."""
    rows: dict[str, list[str]] = {}
    section = ""
    for line in PAGE.splitlines():
        if found := re.fullmatch(r"## \[(.+)\]", line):
            section = found[1]
        elif found := re.fullmatch(r"\| `(\w+)` \|(.*)\|", line):
            rows[f"{section}.{found[1]}"] = [each.strip() for each in re.split(r"(?<!\\)\|", found[2])]
    return rows


def test_it_has_every_key_and_no_other() -> None:
    assert sorted(_rows()) == sorted(reader.keys(File))


def test_every_key_says_what_it_does() -> None:
    assert [key for key, (_, allowed, told) in _rows().items() if not (allowed and told)] == []


def test_what_it_says_is_true_of_the_code() -> None:
    assert _rows()["server.port"] == ["`8000`", "a whole number from 0 to 65535", "0 picks a free one."]
    assert _rows()["connectors.okx.business_url"][2] == "Candles"
    assert "```toml\n[channels.solprice]\n" in PAGE
    assert "Take the `#`" not in PAGE.partition("| key |")[0]
