"""CoinGecko's errors: one interface, several shapes."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.base import ConnectorError, VenueRefused, VenueUnavailable
from connectors.poll.venue import Answer
from connectors.venues.coingecko.errors import explain

NOW_MS = 1_765_211_445_000
SECRET = "CG-abcdefghijklmnop"


def answer(body: bytes, status: int, retry_after: str = "") -> Answer:
    return Answer(status, {"retry-after": retry_after}, body, NOW_MS, 0.0)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: (
        st.dictionaries(st.sampled_from(["error", "status", "error_code", "error_message"]), inner) | st.lists(inner)
    ),
)
bodies = st.binary() | json_values.map(lambda value: json.dumps(value).encode())


def test_a_recorded_refusal_is_one(recorded: Path) -> None:
    body = (recorded / "coingecko_markets_422_missing_vs_currency_2021-07-19.json").read_bytes()
    error = explain(answer(body, 422))
    assert isinstance(error, VenueRefused)
    assert str(error) == ("CoinGecko refused the request (HTTP 422: Missing parameter vs_currency)")


def status_body(code: int, words: str) -> bytes:
    return json.dumps({"status": {"error_code": code, "error_message": words}}).encode()


@pytest.mark.parametrize(
    ("status", "body", "kind", "words"),
    [
        (400, b'{"error":"invalid vs_currency"}', VenueRefused, "(HTTP 400: invalid vs_currency)"),
        (
            400,
            b'{"timestamp":"2025","error_code":10011,"status":{"error_message":"Change root."}}',
            VenueRefused,
            "key is of another plan than [connectors.coingecko] plan and base_url (HTTP 400: Change root)",
        ),
        (400, status_body(10010, "x"), VenueRefused, "key is of another plan"),
        (401, status_body(10002, "API Key Missing."), VenueRefused, "refused the key or its plan"),
        (401, b"", VenueRefused, "refused the key or its plan (HTTP 401)"),
        (
            401,
            b'{"error":{"status":{"error_code":10012,"error_message":"Too far back."}}}',
            VenueRefused,
            "(HTTP 401: Too far back)",
        ),
        (403, b"<html>", VenueRefused, "firewall refused the request (HTTP 403)"),
        (404, b'{"error":"coin not found"}', VenueRefused, "(HTTP 404: coin not found)"),
        (408, b"", VenueUnavailable, "in trouble (HTTP 408)"),
        (503, b"<html>", VenueUnavailable, "in trouble (HTTP 503)"),
        (302, b"", VenueRefused, "moved to another address (HTTP 302)"),
        (200, status_body(503, "down"), VenueUnavailable, "in trouble (HTTP 200: down)"),
        (200, b'{"error":"odd"}', VenueUnavailable, "an error instead of data (HTTP 200: odd)"),
        (200, status_body(10005, "PRO only"), VenueRefused, "refused the key or its plan"),
        (500, b'{"error":{"status":7}}', VenueUnavailable, "in trouble (HTTP 500)"),
    ],
)
def test_an_error_of_any_shape_is_one_sentence(
    status: int, body: bytes, kind: type[ConnectorError], words: str
) -> None:
    error = explain(answer(body, status))
    assert type(error) is kind
    assert words in str(error)
    assert error.retry_after_s is None


@pytest.mark.parametrize(
    ("status", "body", "asked", "seconds"),
    [
        (429, b"", "53", 53.0),
        (429, b"", "0", 10.0),
        (429, b"", "", 60.0),
        (429, b"", "999999999", 3_600.0),
        (429, b"", "-5", 60.0),
        (200, status_body(429, "You've exceeded the Rate Limit."), "", 60.0),
    ],
)
def test_a_rate_limit_is_a_pause(status: int, body: bytes, asked: str, seconds: float) -> None:
    error = explain(answer(body, status, retry_after=asked))
    assert isinstance(error, VenueUnavailable)
    assert error.retry_after_s == seconds
    assert str(error) == f"CoinGecko asked for a pause of {seconds:.0f} s (HTTP 429)"


def test_trouble_that_names_years_is_an_hour() -> None:
    error = explain(answer(b"", 503, retry_after="999999999"))
    assert isinstance(error, VenueUnavailable)
    assert error.retry_after_s == 3_600.0


def test_trouble_with_a_time_is_a_pause() -> None:
    error = explain(answer(b"", 503, retry_after="30"))
    assert error is not None
    assert error.retry_after_s == 30.0


@given(st.integers(100, 599), bodies)
def test_any_answer_can_be_explained(status: int, body: bytes) -> None:
    error = explain(answer(body, status))
    if error is None:
        assert 200 <= status < 300
    else:
        assert str(error).startswith("CoinGecko")
        assert str(error).isprintable()


def test_a_key_that_the_venue_repeats_stays_secret() -> None:
    error = explain(answer(status_body(10002, f"Key {SECRET} is unknown"), 401), SECRET)
    assert str(error).endswith("(HTTP 401: Key [key] is unknown)")
