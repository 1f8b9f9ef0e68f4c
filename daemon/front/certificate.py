"""The server's certificate and key: what TLS is made of them, and what is wrong with them, in words.

`tickerd check` and `tickerd run` both come here, so one cannot pass what the other refuses. What makes clients refuse
the certificate, such as its age, is no reason not to start: some do not look at it. It is a warning.
"""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

import msgspec

from daemon.front.listening import ServerSettings

_SOON_S: Final = 14 * 86_400.0
"""A certificate that ends sooner than this is worth a warning."""

_AGES: Final = {10: "has expired", 9: "is not valid yet"}
"""X509_V_ERR_CERT_HAS_EXPIRED and X509_V_ERR_CERT_NOT_YET_VALID of OpenSSL's x509_vfy.h."""

_MOST_BYTES: Final = 1024 * 1024


class CertificateError(ssl.SSLError):
    """A certificate or key that cannot be used; `str()` says which file, why, and what is allowed."""

    def __str__(self) -> str:
        return str(self.args[0])


class Pair(msgspec.Struct, frozen=True):
    """A certificate and its key, in PEM form, as they were read."""

    certificate: bytes
    key: bytes


class ServerTls(ssl.SSLContext):
    """TLS as a server.

    Attributes:
        pair: what it was made of.
    """

    pair: Pair


def tls_context(server: ServerSettings, pair: Pair | None = None) -> ServerTls | None:
    """The server's TLS, 1.2 and newer; None where no certificate is configured.

    `pair`: what another process has read of the files, where one has.

    Raises:
        OSError: a file cannot be read.
        CertificateError: one is no certificate or key, they do not belong together, the key has a passphrase, or
            OpenSSL finds it too weak.
    """
    if not server.certificate:
        return None
    if pair is None:
        pair = Pair(_read(server.certificate), _read(server.key))
    if b"-----BEGIN CERTIFICATE-----" not in pair.certificate:
        raise CertificateError(f"{server.certificate} holds no certificate in PEM form")
    if b"PRIVATE KEY-----" not in pair.key:
        raise CertificateError(f"{server.key} holds no private key in PEM form")
    if b"ENCRYPTED" in pair.key:
        raise CertificateError(
            f"the key {server.key} has a passphrase; allowed: one without (openssl pkey -in KEY -out NEW)"
        )
    context = ServerTls(ssl.PROTOCOL_TLS_SERVER)
    context.pair = pair
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        with _as_file(pair.certificate) as certificate, _as_file(pair.key) as key:
            # Without a password OpenSSL would ask the terminal for that of an encrypted key, and wait for ever.
            context.load_cert_chain(certificate, key, password="")
    except ssl.SSLError as error:
        raise CertificateError(_reason(error, server)) from None
    context.set_alpn_protocols(["http/1.1"])
    return context


@contextmanager
def _as_file(data: bytes) -> Iterator[str]:
    """The path of a file in memory that holds it: OpenSSL takes nothing else, and what was looked at is what counts."""
    with open(os.memfd_create("tickerd-pem"), "wb") as file:
        file.write(data)
        file.flush()
        yield f"/proc/self/fd/{file.fileno()}"


def _read(path: str) -> bytes:
    """Raises: OSError, whose `strerror` names the file."""
    try:
        with open(path, "rb") as opened:
            return opened.read(_MOST_BYTES)
    except OSError as error:
        raise OSError(error.errno, f"{path} cannot be read: {error.strerror or error}") from None


def _reason(error: ssl.SSLError, server: ServerSettings) -> str:
    match error.reason:
        case "KEY_VALUES_MISMATCH" | "KEY_TYPE_MISMATCH":
            first = "the server's own certificate comes first, then those that signed it, each by the next"
            said = f"{server.key} is not the key of the first certificate in {server.certificate}"
            return f"{said} ({error.reason}); {first}"
        case str(reason) if "TOO_SMALL" in reason or "TOO_WEAK" in reason:
            return f"{server.certificate} is too weak for OpenSSL ({reason}); allowed: RSA of 2048 bits, or P-256"
        case _:
            return f"{server.certificate}, {server.key}: {error.strerror or error}"


def warnings(context: ssl.SSLContext | None, server: ServerSettings) -> list[str]:
    """What makes clients refuse the certificate, now or soon: one sentence each.

    A client that trusts just these certificates shakes hands with the server, in memory.
    """
    if context is None:
        return []
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    name = server.certificate
    try:
        client.load_verify_locations(name)
        client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
        here = client.wrap_bio(to_client, to_server)
        there = context.wrap_bio(to_server, to_client, server_side=True)
        for _ in range(4):
            for side in (here, there):
                with suppress(ssl.SSLWantReadError):
                    side.do_handshake()
        peer = here.getpeercert() or {}
    except ssl.SSLCertVerificationError as error:
        said = _AGES.get(error.verify_code, f"does not hold: {error.verify_message}")
        return [f"the certificate {name} {said}; clients will refuse it"]
    except (OSError, ValueError) as error:
        return [f"no handshake is possible with the certificate {name}: {error}"]
    left_s = ssl.cert_time_to_seconds(str(peer["notAfter"])) - time.time() if "notAfter" in peer else _SOON_S
    if left_s >= _SOON_S:
        return []
    return [f"the certificate {name} expires on {peer['notAfter']}, in {left_s / 86_400:.1f} days"]
