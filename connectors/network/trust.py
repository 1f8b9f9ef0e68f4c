"""Whom to trust: the certificates by which venues and proxies are known, for polls and websockets alike.

They are the system's, as OpenSSL finds them: an authority of one's own belongs there (`update-ca-certificates`), or
into a file or folder that `SSL_CERT_FILE` or `SSL_CERT_DIR` names. Where the system has none at all, as in a bare
container, they are Mozilla's, from certifi.
"""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import certifi

FILE: Final = "SSL_CERT_FILE"
DIRECTORY: Final = "SSL_CERT_DIR"
"""OpenSSL's own variables (SSL_CTX_set_default_verify_paths): the file, and the folders with a colon between them."""

_HASHED: Final = re.compile(r"[0-9a-f]{8}\.[0-9]+")
"""How OpenSSL names the files of such a folder (`openssl rehash`)."""


def client_context() -> ssl.SSLContext:
    """What a connection that we open is secured by. Reads files: make it once, and not on the event loop."""
    context = ssl.create_default_context()
    named = os.environ.get(FILE) or os.environ.get(DIRECTORY)
    if not named and not context.cert_store_stats()["x509_ca"] and not _has_any(ssl.get_default_verify_paths().capath):
        context.load_verify_locations(certifi.where())
    return context


def _has_any(folder: str | None) -> bool:
    """Whether there is a certificate in it; those are read only when they are needed."""
    try:
        return folder is not None and any(_HASHED.fullmatch(name) for name in os.listdir(folder))
    except OSError:
        return False


def refused(environ: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    """Variable, value and what is allowed, where the environment names what OpenSSL would pass over in silence."""
    file, folders = environ.get(FILE, ""), environ.get(DIRECTORY, "")
    if file:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(file)
        except (OSError, ValueError):  # ssl.SSLError is an OSError
            yield FILE, file, "the path of a file that can be read, with certificates in PEM form"
    if folders and not any(Path(folder).is_dir() for folder in folders.split(os.pathsep) if folder):
        yield DIRECTORY, folders, "the path of a folder, with certificates as `openssl rehash` names them"
