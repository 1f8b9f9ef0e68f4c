"""Which tokens are let in, what the others are told, and when a client has to go."""

import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.front.access import ending, exposure, granted, in_force, is_guarded
from daemon.front.request import Refused
from daemon.front.tokens import Presented, digest_of, new_token
from protocol.codes import CloseCode, ErrorCode
from protocol.grant import ANYONE, Grant

GOOD, OTHER = new_token(), new_token()
PARTNER = Grant("partner", ("binance_*",), digest_of(GOOD))
BOT = Grant("bot", mark=digest_of(OTHER))
TOKENS = (PARTNER, BOT)


def refusal(*headers: str, queries: tuple[str, ...] = ()) -> Refused:
    with pytest.raises(Refused) as caught:
        granted(Presented(headers, queries), TOKENS)
    for sent in (*headers, *queries):
        token = sent.split(" ")[-1]
        assert token in ("", "Bearer") or token not in str(caught.value), "what was sent is not repeated"
    return caught.value


@pytest.mark.parametrize(
    "path", ["/ws", "/ws/test", "/events", "/snapshot/binance_prices", "/snapshot/", "/history/okx_candles"]
)
def test_what_gives_data_needs_a_token(path: str) -> None:
    assert is_guarded(path)


@pytest.mark.parametrize(
    "path",
    ["/", "/page.js", "/client.js", "/channels", "/gaps", "/healthz", "/readyz", "/metrics", "/wsx", "/snapshot"],
)
def test_the_rest_stays_open(path: str) -> None:
    assert not is_guarded(path)


def test_without_tokens_nobody_needs_one_and_none_is_looked_at() -> None:
    assert granted(Presented(), None) is ANYONE
    assert granted(Presented(("Bearer what ever", "two"), ("", "")), None) is ANYONE


@pytest.mark.parametrize("presented", [Presented(), Presented((f"Bearer {GOOD}",)), Presented((), (GOOD,))])
def test_where_none_is_in_force_none_lets_anybody_in(presented: Presented) -> None:
    with pytest.raises(Refused, match="nobody is let in") as caught:
        granted(presented, ())
    assert caught.value.status == 401


@pytest.mark.parametrize("opened", [False, True])
@pytest.mark.parametrize("declared", [False, True])
@pytest.mark.parametrize("before", [False, True])
def test_only_the_operators_word_opens_a_door_that_was_closed(opened: bool, declared: bool, before: bool) -> None:
    assert in_force(TOKENS, opened=opened, declared=True, before=before) == TOKENS
    everybody = opened or not (declared or before)
    assert in_force((), opened=opened, declared=declared, before=before) == (None if everybody else ())


@pytest.mark.parametrize(
    ("headers", "queries", "grant"),
    [
        ((f"Bearer {GOOD}",), (), PARTNER),
        ((f"bearer   {OTHER} ",), (), BOT),
        ((), (GOOD,), PARTNER),
        ((f"Bearer {OTHER}",), (GOOD,), BOT),  # the header wins
        ((f"Bearer {OTHER}",), ("", "x"), BOT),
        (("Basic dXNlcjpwYXNz",), (GOOD,), PARTNER),  # a proxy's own password
    ],
)
def test_a_good_token_is_known_by_its_name(headers: tuple[str, ...], queries: tuple[str, ...], grant: Grant) -> None:
    assert granted(Presented(headers, queries), TOKENS) == grant


def test_no_token_is_told_how_to_send_one() -> None:
    refused = refusal()
    assert (refused.status, refused.code) == (401, ErrorCode.UNAUTHORIZED)
    assert refused.headers == (("WWW-Authenticate", 'Bearer realm="tickerd"'),)
    assert "Authorization: Bearer TOKEN" in str(refused)
    assert "?token=TOKEN" in str(refused)


@pytest.mark.parametrize("scheme", ["Basic dXNlcjpwYXNz", GOOD, "Bearerish x", "", "Token abc"])
def test_another_scheme_is_no_token(scheme: str) -> None:
    refused = refusal(scheme)
    assert (refused.status, refused.headers) == (401, (("WWW-Authenticate", 'Bearer realm="tickerd"'),))


@pytest.mark.parametrize(
    ("headers", "queries"),
    [
        ((f"Bearer {GOOD}x",), ()),
        ((f"Bearer {GOOD[:-1]}",), ()),
        ((f"Bearer {GOOD.lower()}",), ()),
        ((), (GOOD[1:],)),
        (("Bearer wrong",), (GOOD,)),
        (("Bearer sha256:" + PARTNER.mark.hex(),), ()),
    ],
)
def test_a_wrong_token_is_refused(headers: tuple[str, ...], queries: tuple[str, ...]) -> None:
    refused = refusal(*headers, queries=queries)
    assert (refused.status, refused.code) == (401, ErrorCode.UNAUTHORIZED)
    assert refused.headers == (("WWW-Authenticate", 'Bearer realm="tickerd", error="invalid_token"'),)


@pytest.mark.parametrize(
    ("headers", "queries"),
    [
        (("Bearer",), ()),
        (("Bearer ",), ()),
        (("Bearer two words",), ()),
        ((f"Bearer {GOOD}, Bearer {GOOD}",), ()),
        ((f"Bearer {GOOD}\xff",), ()),
        (("Bearer " + "x" * 513,), ()),
        ((f"Bearer {GOOD}", f"Bearer {GOOD}"), ()),
        ((), ("",)),
        ((), ("two words",)),
        ((), (GOOD, GOOD)),
        (("Bearer",), (GOOD,)),  # the header wins, as bad as it is
    ],
)
def test_a_token_that_is_not_sent_as_it_must_be_is_refused(headers: tuple[str, ...], queries: tuple[str, ...]) -> None:
    refused = refusal(*headers, queries=queries)
    assert (refused.status, refused.code) == (400, ErrorCode.INVALID_FIELD)
    assert refused.headers == (("WWW-Authenticate", 'Bearer realm="tickerd", error="invalid_request"'),)


@given(st.lists(st.text(), max_size=2), st.lists(st.text(), max_size=2))
def test_whatever_is_sent_is_refused(headers: list[str], queries: list[str]) -> None:
    with pytest.raises(Refused) as caught:
        granted(Presented(tuple(headers), tuple(queries)), TOKENS)
    assert caught.value.status in (400, 401)


@pytest.mark.parametrize("token", [GOOD, OTHER, "wrong"])
def test_every_digest_is_compared_whichever_fits(token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[bytes] = []
    real = hmac.compare_digest

    def compare(a: bytes, b: bytes) -> bool:
        compared.append(a)
        return real(a, b)

    monkeypatch.setattr(hmac, "compare_digest", compare)
    try:
        granted(Presented(queries=(token,)), TOKENS)
    except Refused:
        assert token == "wrong"
    assert compared == [PARTNER.mark, BOT.mark]


def test_a_client_stays_while_its_token_stays_as_it_is() -> None:
    assert ending(TOKENS, PARTNER) is None
    assert ending((BOT, PARTNER), PARTNER) is None
    assert ending(None, ANYONE) is None


@pytest.mark.parametrize(
    ("tokens", "grant", "code", "reason"),
    [
        ((BOT,), PARTNER, CloseCode.POLICY, "token partner was revoked"),
        ((), PARTNER, CloseCode.POLICY, "token partner was revoked"),
        ((Grant("partner", ("binance_*",), b"x" * 32),), PARTNER, CloseCode.POLICY, "token partner was revoked"),
        (
            (Grant("partner", ("*",), PARTNER.mark),),
            PARTNER,
            CloseCode.TRY_AGAIN_LATER,
            "token partner was changed: connect again",
        ),
        (
            (Grant("friend", PARTNER.patterns, PARTNER.mark),),
            PARTNER,
            CloseCode.TRY_AGAIN_LATER,
            "token partner was changed: connect again",
        ),
        (None, PARTNER, CloseCode.POLICY, "token partner was revoked"),
        ((), ANYONE, CloseCode.POLICY, "a token is needed from now on"),
        (TOKENS, ANYONE, CloseCode.POLICY, "a token is needed from now on"),
    ],
)
def test_a_client_has_to_go_where_its_token_is_another(
    tokens: tuple[Grant, ...] | None, grant: Grant, code: CloseCode, reason: str
) -> None:
    assert ending(tokens, grant) == (code, reason)
    assert len(reason.encode()) <= 123, "what a close frame can hold"


def test_a_long_name_leaves_room_in_the_close_frame() -> None:
    for tokens in ((), (Grant("other", mark=b"m"),)):
        found = ending(tokens, Grant("n" * 64, mark=b"m"))
        assert found is not None
        assert len(found[1].encode()) <= 123


@pytest.mark.parametrize(
    ("hosts", "tokens", "encrypted", "warned"),
    [
        (["127.0.0.1", "::1"], False, False, []),
        (["127.0.0.5"], False, False, []),
        (["0.0.0.0"], True, True, []),
        (["0.0.0.0"], False, True, ["without tokens"]),
        (["::"], True, False, ["without TLS"]),
        (["127.0.0.1", "192.0.2.1", "192.0.2.1"], False, False, ["without tokens", "without TLS"]),
    ],
)
def test_it_is_warned_of_where_others_can_reach_it(
    hosts: list[str], tokens: bool, encrypted: bool, warned: list[str]
) -> None:
    lines = exposure(hosts, tokens=tokens, encrypted=encrypted)
    assert len(lines) == len(warned)
    for line, what in zip(lines, warned, strict=True):
        assert line.startswith(f"listening on {hosts[-1]} {what}: ")
