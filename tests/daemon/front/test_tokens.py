"""Tokens: how they are made, and how they are kept out of what is shown."""

import hashlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.front.request import Refused, Request
from daemon.front.tokens import Presented, digest_of, new_token, redacted, taken_out
from protocol.codes import ErrorCode

TOKEN = "tkd_Zm9vYmFyYmF6cXV4Zm9vYmFyYmF6cXV4Zm9vYmFyYmE"
WORDS = "abcdefghijklmnopqrstuvwxyz0123456789-_"


def test_a_token_is_256_random_bits_in_characters_that_need_no_quoting() -> None:
    tokens = {new_token() for _ in range(100)}
    assert len(tokens) == 100
    assert all(re.fullmatch(r"tkd_[A-Za-z0-9_-]{43}", token) for token in tokens)


def test_the_digest_is_that_of_sha256sum() -> None:
    assert digest_of(TOKEN) == hashlib.sha256(TOKEN.encode()).digest()


def test_what_is_secret_is_taken_out_of_headers_and_query() -> None:
    headers = (("host", "h"), ("authorization", f"Bearer {TOKEN}"), ("accept", "*"), ("authorization", "Basic eA=="))
    query = (("channels", "a"), ("token", TOKEN), ("token", ""))
    kept, fields, presented = taken_out(headers, query)
    assert (kept, fields) == ((("host", "h"), ("accept", "*")), (("channels", "a"),))
    assert presented == Presented((f"Bearer {TOKEN}", "Basic eA=="), (TOKEN, ""))
    assert repr(presented) == "Presented(2 headers, 2 query fields)"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"nothing is at '/{TOKEN}'", "nothing is at '/tkd_***'"),
        ("nothing is at '/ws?token=secret'", "nothing is at '/ws?token=***'"),
        ("at '/ws?a=1&token=secret&b=2'", "at '/ws?a=1&token=***&b=2'"),
        ("at '/ws%3Ftoken%3Dsecret'", "at '/ws%3Ftoken%3D***'"),
        ("Authorization: bearer  secret, spoken", "Authorization: bearer  *** spoken"),
        ("send Authorization: Bearer TOKEN or ?token=TOKEN", "send Authorization: Bearer TOKEN or ?token=TOKEN"),
        ("the channel tkd_btc, and bearerless", "the channel tkd_btc, and bearerless"),
    ],
)
def test_what_looks_like_a_token_is_made_unreadable(text: str, shown: str) -> None:
    assert redacted(text) == shown


@given(st.text(WORDS, min_size=43, max_size=43), st.text(max_size=20), st.text(max_size=20))
def test_a_token_is_unreadable_wherever_it_stands(secret: str, before: str, after: str) -> None:
    assert secret not in redacted(f"{before} tkd_{secret} {after}")
    assert secret not in redacted(f"{before}?token={secret}&{after}")


def test_a_refusal_and_a_request_do_not_repeat_it() -> None:
    refused = Refused(404, ErrorCode.NOT_FOUND, f"nothing is at '/{TOKEN}&token=x'")
    assert str(refused) == "nothing is at '/tkd_***&token=***'"
    assert TOKEN.encode() not in refused.response("t").body
    request = Request(
        method="GET",
        path=f"/{TOKEN}",
        headers=(("referer", TOKEN),),
        presented=Presented((TOKEN,), (TOKEN,)),
        body=TOKEN.encode(),
        peer="192.0.2.1",
    )
    assert repr(request) == "Request(GET /tkd_*** from 192.0.2.1)"
