"""`[tokens.NAME]`: what is read of it, what is refused, and that nothing secret is shown."""

import pytest

from daemon.config.load import Config, ConfigError, parse
from daemon.config.tokens import grants, is_name, written_hash
from daemon.front.tokens import digest_of, new_token
from protocol.grant import Grant

TOKEN = new_token()
HASH = written_hash(TOKEN)
OTHER = written_hash("other")


def config(text: str, **environ: str) -> Config:
    return parse(text, environ, "test.toml")


def error(text: str, **environ: str) -> str:
    with pytest.raises(ConfigError) as refused:
        config(text, **environ)
    [line] = refused.value.errors
    for secret in (TOKEN, TOKEN[4:], HASH, HASH[7:], OTHER[7:]):
        assert secret not in line
    return line


def test_without_a_word_there_are_none() -> None:
    assert grants(config("").tokens) == ()


def test_several_have_names_hashes_and_channels() -> None:
    read = config(
        f"[tokens.partner]\nhash = '{HASH}'\nchannels = ['binance_*', 'ethprice']\n"
        f"[tokens.Bot-2]\nhash = '{OTHER[:7]}{OTHER[7:].upper()}'\n"
    )
    assert grants(read.tokens) == (
        Grant("partner", ("binance_*", "ethprice"), digest_of(TOKEN)),
        Grant("Bot-2", ("*",), digest_of("other")),
    )


def test_neither_hash_nor_digest_is_shown() -> None:
    read = config(f"[tokens.partner]\nhash = '{HASH}'\n")
    for shown in (repr(read), repr(grants(read.tokens))):
        assert "partner" in shown
        assert HASH[7:20] not in shown
        assert repr(digest_of(TOKEN))[2:-1] not in shown


def test_the_environment_may_have_them_too() -> None:
    read = config("", TICKERD_TOKENS__BOT__HASH=HASH, TICKERD_TOKENS__BOT__CHANNELS='["ethprice"]')
    assert grants(read.tokens) == (Grant("bot", ("ethprice",), digest_of(TOKEN)),)


HASH_ALLOWED = "allowed: sha256: and 64 hexadecimal digits, as `tickerd token` prints it"
CHANNELS_ALLOWED = "allowed: at least one channel or pattern, of a to z, 0 to 9, _, * and ?"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[tokens.a]", f'tokens.a.hash: got ""; {HASH_ALLOWED}'),
        ("[tokens.a]\nhash = 7", f"tokens.a.hash: got a secret that is not shown; {HASH_ALLOWED}"),
        (f"[tokens.a]\nhash = '{HASH[7:]}'", f"tokens.a.hash: got a value that is not shown; {HASH_ALLOWED}"),
        (f"[tokens.a]\nhash = '{HASH[:-1]}'", f"tokens.a.hash: got a value that is not shown; {HASH_ALLOWED}"),
        (
            f"[tokens.a]\nhash = '{TOKEN}'",
            f"tokens.a.hash: got a token, which is not shown: make another, this one has been written down; "
            f"{HASH_ALLOWED}",
        ),
        (f"[tokens]\na = '{TOKEN}'", "tokens.a: got a value that is not shown; allowed: a table"),
        (f"tokens = '{TOKEN}'", "tokens: got a value that is not shown; allowed: a table"),
        (
            f"[tokens.a]\nhash = '{HASH}'\n[tokens.b]\nhash = 'sha256:{HASH[7:].upper()}'",
            "tokens.b.hash: got the hash of tokens.a; allowed: a hash of its own: each token has one name",
        ),
        (f"[tokens.a]\nhash = '{HASH}'\nchannels = []", f"tokens.a.channels: got []; {CHANNELS_ALLOWED}"),
        (
            f"[tokens.a]\nhash = '{HASH}'\nchannels = ['[ab]*']",
            f'tokens.a.channels: got ["[ab]*"]; {CHANNELS_ALLOWED}',
        ),
        (
            f"[tokens.a]\nhash = '{HASH}'\nchannels = 'ethprice'",
            'tokens.a.channels: got "ethprice"; allowed: a list of channels and patterns, as ["binance_*"]',
        ),
        (
            f"[tokens.a]\nhash = '{HASH}'\nchanels = ['*']",
            "tokens.a.chanels: unknown key; nearest is tokens.a.channels",
        ),
        (
            f"[tokens.'a b']\nhash = '{HASH}'",
            'tokens."a b": got the name "a b"; allowed: 1 to 64 letters, digits, _ and -, not beginning with tkd_, '
            "as tokens do",
        ),
        (
            f"[tokens.{TOKEN}]\nhash = '{HASH}'",
            'tokens.tkd_***: got the name "tkd_***"; allowed: 1 to 64 letters, digits, _ and -, not beginning with '
            "tkd_, as tokens do",
        ),
    ],
)
def test_a_mistake_is_told_with_its_key_and_nothing_secret(text: str, line: str) -> None:
    assert error(text) == line


def test_names_are_short_and_plain() -> None:
    assert all(map(is_name, ["a", "Bot-2", "a_b", "n" * 64]))
    assert not any(map(is_name, ["", "a b", "a.b", "n" * 65, "\u00e9", "a\n", "tkd_a"]))
