"""Text of files as editors write them."""

import pytest

from daemon.host.text import decoded


def test_a_byte_order_mark_is_no_text() -> None:
    assert decoded(b"\xef\xbb\xbfa\r\n") == decoded(b"a\r\n") == "a\r\n"


@pytest.mark.parametrize(
    ("encoding", "said"),
    [
        ("utf-16", "text in UTF-16; allowed: UTF-8"),
        ("utf-32", "text in UTF-32; allowed: UTF-8"),
        ("utf-16-le", "not text in UTF-8: it holds NUL characters, as text in UTF-16 does"),
        ("latin-1", "not text in UTF-8"),
    ],
)
def test_what_is_none_is_said(encoding: str, said: str) -> None:
    with pytest.raises(ValueError) as refused:  # noqa: PT011 - its words are looked at
        decoded("für".encode(encoding))
    assert str(refused.value) == said
