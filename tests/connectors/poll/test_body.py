"""A body as it comes: whatever a venue sends, it costs no more than its bound."""

import gzip
import time
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.poll.body import MOST_CHUNKS, Body

MOST = 1000


def taken(body: Body, *chunks: bytes) -> bytes:
    """What there is of it, and what was not asked for after a refusal."""
    for chunk in chunks:
        if not body.add(chunk):
            break
    return body.end()


def said(body: Body) -> str:
    return body.refused


@given(st.binary(max_size=MOST), st.sampled_from(["", "identity", "gzip", " GZip ", "x-gzip"]), st.integers(1, 50))
def test_a_body_within_its_bound_is_what_was_sent_however_it_is_cut(content: bytes, coding: str, size: int) -> None:
    sent = gzip.compress(content) if "gzip" in coding.lower() else content
    body = Body("Acme", coding, MOST + 50)
    assert taken(body, *(sent[at : at + size] for at in range(0, len(sent), size))) == content
    assert body.refused == ""


@pytest.mark.parametrize("coding", ["", "gzip"])
def test_a_byte_too_many_is_too_much(coding: str) -> None:
    for size in (MOST, MOST + 1):
        content = b"1" * size
        body = Body("Acme", coding, MOST)
        fits = taken(body, gzip.compress(content) if coding else content) == content
        assert fits is (size == MOST)
    assert said(body) == "Acme sent a body of more than 1000 bytes"


def bomb(times: int) -> bytes:
    """Zeros, packed so often."""
    content = b"\0" * 100_000_000
    for _ in range(times):
        content = gzip.compress(content, 9)
    return content


def test_a_bomb_costs_no_more_than_its_bound() -> None:
    sent = bomb(1)
    assert len(sent) < 100_000
    body = Body("Acme", "gzip", MOST)
    tracemalloc.start()
    began_s = time.process_time()
    try:
        assert taken(body, sent) == b""
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert said(body) == "Acme sent a body of more than 1000 bytes"
    # The rest of the piece is kept by zlib, packed.
    assert peak_bytes < 2 * len(sent) + 100_000
    assert time.process_time() - began_s < 0.1


@pytest.mark.parametrize(
    "coding", ["gzip, gzip", "gzip,gzip", "br", "zstd", "deflate", "compress", "gzip, br", "identity, gzip", "x" * 5000]
)
def test_a_coding_that_was_not_asked_for_is_not_even_tried(coding: str) -> None:
    body = Body("Acme", coding, MOST)
    assert taken(body, bomb(1)[:100]) == b""
    assert said(body) == f"Acme sent a body in a coding that was not asked for: {coding[:40]!r}"


@pytest.mark.parametrize(
    "sent",
    [b"{}", gzip.compress(b"{}")[:-1], zlib.compress(b"{}"), b"\x1f\x8b" + b"\0" * 100, b"\x1f"],
)
def test_what_is_not_packed_as_it_says_is_refused(sent: bytes) -> None:
    body = Body("Acme", "gzip", MOST)
    assert taken(body, sent) == b""
    assert said(body) == "Acme sent a body that cannot be decompressed"


def test_nothing_at_all_is_a_body_in_any_coding() -> None:
    body = Body("Acme", "gzip", MOST)
    assert taken(body) == b""
    assert body.refused == ""


def test_packed_bytes_that_unpack_to_nothing_have_the_same_bound() -> None:
    empty_block = b"\x00\x00\x00\xff\xff"
    body = Body("Acme", "gzip", MOST)
    assert taken(body, gzip.compress(b"")[:10], *[empty_block] * MOST) == b""
    assert said(body) == "Acme sent a body of more than 1000 bytes"


def test_a_body_comes_in_so_many_pieces_at_most() -> None:
    body = Body("Acme", "", MOST_CHUNKS + 10)
    assert taken(body, *[b"1"] * (MOST_CHUNKS + 5)) == b""
    assert said(body) == "Acme sent a body in more than 16384 pieces"


def test_after_a_refusal_nothing_is_taken() -> None:
    body = Body("Acme", "", MOST)
    assert not body.add(b"1" * (MOST + 1))
    assert not body.add(b"1")
    assert body.end() == b""
