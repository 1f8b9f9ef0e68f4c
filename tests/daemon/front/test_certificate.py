"""What is wrong with a certificate and its key, in words; and that `tickerd check` says what `tickerd run` would."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from daemon.__main__ import main
from daemon.front.certificate import CertificateError, tls_context, warnings
from daemon.front.listening import ServerSettings
from tests.daemon.serving import certificate
from tests.process.running import tickerd


def openssl(*arguments: str) -> None:
    command = ["openssl", *arguments]
    subprocess.run(command, check=True, capture_output=True, env={"PATH": os.environ["PATH"]})


def _other_key(folder: Path, _pem: Path, key: Path) -> None:
    openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", str(key))


def _passphrase(folder: Path, pem: Path, key: Path) -> None:
    certificate(folder, passphrase="open sesame")


def _traditional_passphrase(folder: Path, pem: Path, key: Path) -> None:
    openssl("ec", "-in", str(key), "-aes128", "-passout", "pass:open sesame", "-out", str(folder / "new"))
    (folder / "new").replace(key)


def _wrong_order(folder: Path, pem: Path, key: Path) -> None:
    above = folder / "above"
    above.mkdir()
    pem.write_text(certificate(above)[0].read_text() + pem.read_text())


def _weak(folder: Path, pem: Path, key: Path) -> None:
    subject = ["-subj", "/CN=localhost", "-days", "2", "-nodes"]
    openssl("req", "-x509", "-newkey", "rsa:1024", *subject, "-keyout", str(key), "-out", str(pem))


WRONG: dict[str, tuple[Callable[[Path, Path, Path], object], str]] = {
    "another's key": (_other_key, "localhost.key is not the key of the first certificate in "),
    "wrong order": (_wrong_order, "the server's own certificate comes first"),
    "a passphrase": (_passphrase, "localhost.key has a passphrase; allowed: one without"),
    "a passphrase, as of old": (_traditional_passphrase, "localhost.key has a passphrase; allowed: one without"),
    "a weak key": (_weak, "localhost.pem is too weak for OpenSSL (EE_KEY_TOO_SMALL)"),
    "prose": (lambda _, pem, __: pem.write_text("no certificate"), "localhost.pem holds no certificate in PEM form"),
    "no key": (lambda _, pem, key: key.write_text(pem.read_text()), "localhost.key holds no private key in PEM form"),
    "swapped": (lambda _, pem, key: pem.write_text(key.read_text()), "localhost.pem holds no certificate in PEM form"),
    "cut short": (lambda _, pem, __: pem.write_text(pem.read_text()[:200]), "localhost.pem, "),
}


def configured(folder: Path, pem: Path, key: Path) -> Path:
    file = folder / "tickerd.toml"
    file.write_text(f"[server]\nport = 0\ncertificate = '{pem}'\nkey = '{key}'\n")
    return file


@pytest.mark.parametrize("kind", WRONG)
def test_check_refuses_what_run_refuses_and_both_say_why(
    tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pem, key = certificate(tmp_path)
    spoil, said = WRONG[kind]
    spoil(tmp_path, pem, key)
    with pytest.raises(CertificateError) as refused:
        tls_context(ServerSettings(certificate=str(pem), key=str(key)))
    assert said in str(refused.value)
    file = configured(tmp_path, pem, key)
    assert main(["check", str(file)]) == 78
    checked = capsys.readouterr().out.strip()
    assert checked == f"server.certificate, server.key: cannot be used: {refused.value}"


def test_run_says_the_same(tmp_path: Path) -> None:
    pem, key = certificate(tmp_path)
    _other_key(tmp_path, pem, key)
    with tickerd("run", "--config", str(configured(tmp_path, pem, key))) as daemon:
        assert daemon.wait() == 78
    [line] = [line for line in daemon.lines if line.startswith("tickerd: ")]
    assert line.startswith(f"tickerd: server.certificate, server.key: cannot be used: {key} is not the key of ")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    pem, key = certificate(tmp_path)
    key.chmod(0)
    with pytest.raises(PermissionError, match=r"localhost\.key cannot be read: Permission denied"):
        tls_context(ServerSettings(certificate=str(pem), key=str(key)))


def _dated(folder: Path, start: str, end: str) -> ServerSettings:
    """A certificate of these days, which `openssl req` cannot make: `openssl ca` can."""
    pem, key = certificate(folder)
    (folder / "index").touch()
    config = folder / "ca.cnf"
    config.write_text(
        f"[ca]\ndefault_ca=d\n[d]\ndatabase={folder}/index\nnew_certs_dir={folder}\ndefault_md=sha256\npolicy=p\n"
        "rand_serial=yes\nunique_subject=no\n[p]\ncommonName=supplied\n"
    )
    request = folder / "request"
    openssl("req", "-new", "-key", str(key), "-subj", "/CN=localhost", "-out", str(request))
    signed = ["-keyfile", str(key), "-in", str(request), "-out", str(pem), "-startdate", start, "-enddate", end]
    openssl("ca", "-batch", "-notext", "-selfsign", "-config", str(config), *signed)
    return ServerSettings(certificate=str(pem), key=str(key))


@pytest.mark.parametrize(
    ("start", "end", "said"),
    [
        ("20200101000000Z", "20210101000000Z", "has expired; clients will refuse it"),
        ("20900101000000Z", "20910101000000Z", "is not valid yet; clients will refuse it"),
    ],
)
def test_one_that_clients_refuse_by_its_age_is_warned_of(
    tmp_path: Path, start: str, end: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = _dated(tmp_path, start, end)
    context = tls_context(settings)
    assert warnings(context, settings) == [f"the certificate {settings.certificate} {said}"]
    assert main(["check", str(configured(tmp_path, Path(settings.certificate), Path(settings.key)))]) == 0
    assert said in capsys.readouterr().out


def test_one_that_ends_soon_is_warned_of_and_a_good_one_is_not(tmp_path: Path) -> None:
    pem, key = certificate(tmp_path)  # for two days
    settings = ServerSettings(certificate=str(pem), key=str(key))
    [warning] = warnings(tls_context(settings), settings)
    assert "expires on" in warning
    assert warnings(None, settings) == []
    shutil.rmtree(tmp_path)
    tmp_path.mkdir()
    settings = _dated(tmp_path, "20200101000000Z", "20910101000000Z")
    assert warnings(tls_context(settings), settings) == []
