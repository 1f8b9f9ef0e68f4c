"""Secrets that systemd hands over as files."""

import logging
import os
from pathlib import Path

import pytest

from connectors.venues.registry import COINGECKO
from daemon.config.load import Config, ConfigError, load

SECRET = "CG-hush-hush"
VARIABLE = "TICKERD_CONNECTORS__COINGECKO__API_KEY"
DEMO = "[connectors.coingecko]\nplan = 'demo'\n"


def config(folder: Path, text: str = DEMO, **environ: str) -> Config:
    file = folder / "tickerd.toml"
    file.write_text(text)
    return load(file, {"CREDENTIALS_DIRECTORY": str(folder), **environ})


def error(folder: Path, text: str = DEMO) -> str:
    with pytest.raises(ConfigError) as refused:
        config(folder, text)
    [line] = refused.value.errors
    return line


def test_the_key_is_read_without_the_line_break_behind_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "coingecko_api_key").write_text(f"{SECRET}\n")
    with caplog.at_level(logging.DEBUG):
        read = config(tmp_path)
    assert read.connectors.of(COINGECKO).api_key == SECRET
    assert SECRET not in repr(read) + caplog.text


def test_it_wins_over_the_file_and_the_environment_wins_over_it(tmp_path: Path) -> None:
    (tmp_path / "coingecko_api_key").write_text(SECRET)
    assert config(tmp_path, DEMO + "api_key = 'old'").connectors.of(COINGECKO).api_key == SECRET
    assert config(tmp_path, **{VARIABLE: "other"}).connectors.of(COINGECKO).api_key == "other"


def test_without_a_file_of_its_own_it_does_too(tmp_path: Path) -> None:
    (tmp_path / "coingecko_api_key").write_text(SECRET)
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path), "TICKERD_CONNECTORS__COINGECKO__PLAN": "demo"}
    assert load(None, environ).connectors.of(COINGECKO).api_key == SECRET


def test_none_need_be_there(tmp_path: Path) -> None:
    assert config(tmp_path, "").connectors.of(COINGECKO).api_key == ""
    assert load(None, {"CREDENTIALS_DIRECTORY": str(tmp_path / "gone")}).connectors.of(COINGECKO).api_key == ""


def test_one_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "coingecko_api_key").mkdir()
    line = error(tmp_path, "")
    assert line.startswith(
        f"connectors.coingecko.api_key: the credential {tmp_path}/coingecko_api_key cannot be read: "
    )


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_nor_is_one_that_may_not_be_read_passed_over(tmp_path: Path) -> None:
    (tmp_path / "coingecko_api_key").touch(mode=0o000)
    assert "cannot be read: Permission denied" in error(tmp_path, "")


@pytest.mark.parametrize(
    "content", [b"CG-hush-hush\xff", "CG-hush-hush\u00e9".encode(), b"CG-hush hush", b"hush" * 1025]
)
def test_what_is_no_key_is_refused_and_not_shown(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "coingecko_api_key").write_bytes(content)
    line = error(tmp_path)
    assert "coingecko_api_key" in line
    assert "hush" not in line


def test_a_table_that_is_none_is_told_as_such(tmp_path: Path) -> None:
    (tmp_path / "coingecko_api_key").write_text(SECRET)
    line = error(tmp_path, "connectors = 1")
    assert line.startswith("connectors: got ")
    assert SECRET not in line


# Tokens: a file of tables.

PARTNER, BOT = (f"sha256:{digit * 64}" for digit in "ab")


def test_tokens_may_be_a_credential(tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text(f"# f\u00fcr Freunde\n[tokens.partner]\nhash = '{PARTNER}'\n")
    read = config(tmp_path, f"[tokens.bot]\nhash = '{BOT}'\n")
    assert {name: section.hash for name, section in read.tokens.items()} == {"bot": BOT, "partner": PARTNER}


def test_a_token_of_the_credential_takes_the_place_of_the_files(tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text(f"[tokens.bot]\nhash = '{PARTNER}'\n")
    read = config(tmp_path, f"[tokens.bot]\nhash = '{BOT}'\nchannels = ['ethprice']\n")
    assert (read.tokens["bot"].hash, read.tokens["bot"].channels) == (PARTNER, ("*",))
    assert config(tmp_path, "", TICKERD_TOKENS__BOT__HASH=BOT).tokens["bot"].hash == BOT


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"[tokens.bot]\nhash = 'x'", 'tokens.bot.hash (from "CREDENTIALS_DIRECTORY/tokens"): got a value that is not'),
        (b"tokens = 7", "tokens: the credential {} holds something else than [tokens.NAME] tables"),
        (b"[token.bot]", "tokens: the credential {} holds something else than [tokens.NAME] tables"),
        (b"[tokens.bot]\n[log]\n", "tokens: the credential {} holds something else than [tokens.NAME] tables"),
        (b"hush-hush", "tokens: the credential {}: not TOML: "),
        (b"[tokens.bot]\xff", "tokens: the credential {} is not text in UTF-8"),
        (b"#" * (1024 * 1024 + 1), "tokens: the credential {} has more than 1048576 bytes"),
    ],
)
def test_a_credential_that_is_no_file_of_tokens_is_told(tmp_path: Path, content: bytes, line: str) -> None:
    (tmp_path / "tokens").write_bytes(content)
    told = error(tmp_path, "")
    assert told.startswith(line.format(tmp_path / "tokens"))
    assert "hush" not in told


def test_tokens_that_are_no_table_are_told_as_such(tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text(f"[tokens.bot]\nhash = '{PARTNER}'\n")
    assert error(tmp_path, "tokens = 1") == "tokens: got a value that is not shown; allowed: a table"
