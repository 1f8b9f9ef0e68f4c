"""Text of files that people have written, in whatever editor: UTF-8 with a byte order mark or without."""

from __future__ import annotations

import codecs
from typing import Final

_MARKS: Final = (
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)
"""UTF-32 first: its mark begins with that of UTF-16."""


def decoded(content: bytes) -> str:
    """The text of a file.

    Raises:
        ValueError: what it is instead, to follow "it is".
    """
    for mark, name in _MARKS:
        if content.startswith(mark):
            raise ValueError(f"text in {name}; allowed: UTF-8")
    if b"\0" in content:
        raise ValueError("not text in UTF-8: it holds NUL characters, as text in UTF-16 does")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError("not text in UTF-8") from None
