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


# As editors write files.


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbfCG-hush-hush",
        b"\xef\xbb\xbfCG-hush-hush\r\n\r\n",
        b"CG-hush-hush\r\n",
        b"\n  CG-hush-hush \n\n\n",
    ],
)
def test_marks_and_line_ends_around_a_key_are_none_of_it(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "coingecko_api_key").write_bytes(content)
    assert config(tmp_path).connectors.of(COINGECKO).api_key == SECRET


def test_tokens_and_the_configuration_may_have_a_mark_and_windows_line_ends(tmp_path: Path) -> None:
    (tmp_path / "tokens").write_bytes(f"\ufeff[tokens.bot]\r\nhash = '{BOT}'\r\n\r\n".encode())
    file = tmp_path / "marked.toml"
    file.write_bytes("\ufeff[server]\r\nport = 9000\r\n".encode())
    read = load(file, {"CREDENTIALS_DIRECTORY": str(tmp_path)})
    assert (read.server.port, read.tokens["bot"].hash) == (9000, BOT)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le"])
@pytest.mark.parametrize("name", ["coingecko_api_key", "tokens", "tickerd.toml"])
def test_another_encoding_is_named(tmp_path: Path, name: str, encoding: str) -> None:
    file = tmp_path / "tickerd.toml"
    file.write_text(DEMO + f"api_key = '{SECRET}'")
    (tmp_path / name).write_bytes("[tokens.hush]".encode(encoding))
    with pytest.raises(ConfigError) as refused:
        load(file, {"CREDENTIALS_DIRECTORY": str(tmp_path)})
    [line] = refused.value.errors
    assert name in line
    assert encoding.upper()[:6] in line if not encoding.endswith("e") else "as text in UTF-16 does" in line
    assert "hush" not in line


def test_an_empty_key_is_told(tmp_path: Path) -> None:
    (tmp_path / "coingecko_api_key").write_bytes(b"\xef\xbb\xbf\r\n")
    assert error(tmp_path) == f"connectors.coingecko.api_key: the credential {tmp_path}/coingecko_api_key is empty"


# What an operator may have forgotten.


def test_a_key_without_its_plan_and_a_plan_without_its_key_say_where_the_other_goes(tmp_path: Path) -> None:
    assert error(tmp_path).endswith(
        "(api_key, the credential coingecko_api_key, or TICKERD_CONNECTORS__COINGECKO__API_KEY)"
    )
    (tmp_path / "coingecko_api_key").write_text(SECRET)
    line = error(tmp_path, "")
    assert line.startswith('connectors.coingecko.plan: got "keyless"; allowed: "demo" or "pro"')
    assert line.endswith("(plan in [connectors.coingecko], or TICKERD_CONNECTORS__COINGECKO__PLAN)")


def test_a_credential_that_nobody_reads_is_warned_of(tmp_path: Path) -> None:
    for name in ("coingecko_key", "tokens.toml", "unlike-all", "tls.pem", "tls.key"):
        (tmp_path / name).write_text(SECRET)
    used = f"[server]\ncertificate = '{tmp_path}/tls.pem'\nkey = '{tmp_path}/tls.key'\n"
    credentials = tmp_path
    file = tmp_path.parent / f"{tmp_path.name}.toml"
    file.write_text(used)
    warnings = load(file, {"CREDENTIALS_DIRECTORY": str(credentials)}).warnings
    assert [warning.partition(" is not used: ")[0] for warning in warnings] == [
        "the credential coingecko_key",
        "the credential tokens.toml",
        "the credential unlike-all",
    ]
    assert warnings[0].endswith("nearest is coingecko_api_key")
    assert warnings[1].endswith("nearest is tokens")
    assert "known are coingecko_api_key" in warnings[2] or "coingecko_api_key" in warnings[2]
    assert not [warning for warning in warnings if SECRET in warning]


def test_a_key_of_a_venue_that_is_switched_off_is_warned_of_and_ends_nothing(tmp_path: Path) -> None:
    (tmp_path / "coingecko_api_key").write_text(SECRET)
    file = tmp_path.parent / f"{tmp_path.name}.toml"
    file.write_text("[connectors.coingecko]\nenabled = false\n")
    assert load(file, {"CREDENTIALS_DIRECTORY": str(tmp_path)}).warnings == (
        "the credential coingecko_api_key is not used: connectors.coingecko.enabled is false",
    )
