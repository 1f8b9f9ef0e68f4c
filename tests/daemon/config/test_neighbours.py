"""What container engines write about other services is passed over with one warning; our own mistakes are not."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.config import reader
from daemon.config.load import Config, ConfigError, parse
from daemon.config.settings import File


def config(environ: dict[str, str]) -> Config:
    return parse("", environ, "test.toml")


def service(name: str, address: str = "10.0.0.7", port: int = 8000, port_name: str = "http") -> dict[str, str]:
    """What Kubernetes writes about a service (kubernetes/pkg/kubelet/envvars/envvars.go)."""
    stem = name.upper().replace("-", "_")
    host = f"[{address}]" if ":" in address else address
    url = f"tcp://{host}:{port}"
    return {
        f"{stem}_SERVICE_HOST": address,
        f"{stem}_SERVICE_PORT": str(port),
        f"{stem}_SERVICE_PORT_{port_name.upper().replace('-', '_')}": str(port),
        f"{stem}_PORT": url,
        f"{stem}_PORT_{port}_TCP": url,
        f"{stem}_PORT_{port}_TCP_PROTO": "tcp",
        f"{stem}_PORT_{port}_TCP_PORT": str(port),
        f"{stem}_PORT_{port}_TCP_ADDR": address,
    }


def link(alias: str) -> dict[str, str]:
    """What Docker writes about a linked container (moby/daemon/links/links.go), two ports in a row among it."""
    stem, url = alias.upper().replace("-", "_"), "udp://172.17.0.2:53"
    return {
        f"{stem}_NAME": f"/web/{alias}",
        f"{stem}_PORT": url,
        f"{stem}_PORT_53_UDP": url,
        f"{stem}_PORT_53_UDP_ADDR": "172.17.0.2",
        f"{stem}_PORT_53_UDP_PORT": "53",
        f"{stem}_PORT_53_UDP_PROTO": "udp",
        f"{stem}_PORT_53_UDP_START": url,
        f"{stem}_PORT_53_UDP_PORT_START": "53",
        f"{stem}_PORT_53_UDP_END": "udp://172.17.0.2:54",
        f"{stem}_PORT_53_UDP_PORT_END": "54",
        f"{stem}_ENV_PATH": "/usr/bin",
        f"{stem}_ENV_TICKERD_SERVER__PORT": "9000",
        f"{stem}_ENV_API_TOKEN": "hush-hush",
    }


@pytest.mark.parametrize(
    "written",
    [
        service("tickerd"),
        service("tickerd", "fd00::7"),
        service("tickerd-sim", port=9000),
        service("tickerd-server", port=80, port_name="metrics-1"),
        service("tickerd-server-port"),
        service("tickerd--sim"),
        link("tickerd"),
        link("tickerd_1"),
        link("tickerd-sim"),
        {name.lower(): value for name, value in service("tickerd").items()},
    ],
)
def test_a_neighbours_variables_are_passed_over_with_one_warning_that_names_them(written: dict[str, str]) -> None:
    for name, value in written.items():
        [alone] = config({name: value}).warnings
        assert alone.startswith(f"passed over {name}: ")
    read = config(written | {"TICKERD_SERVER__PORT": "8123"})
    [warning] = read.warnings
    assert all(name in warning for name in written)
    assert "enableServiceLinks: false" in warning
    assert "TICKERD_SECTION__KEY" in warning
    assert "hush-hush" not in warning
    assert read.server.port == 8123
    assert read.server == parse("server.port = 8123", {}, "a test").server


def test_without_any_there_is_no_warning() -> None:
    assert config({"TICKERD_SERVER__PORT": "1", "PORT": "tcp://10.0.0.7:1", "TICKERDX_PORT": "x"}).warnings == ()


def test_very_many_are_named_in_part() -> None:
    [warning] = config({f"TICKERD_{number:03}_SERVICE_PORT": "80" for number in range(500)}).warnings
    assert "TICKERD_000_SERVICE_PORT" in warning
    assert "and 470 more" in warning


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("TICKERD_SERVER__PROT", "9000"),
        ("TICKERD_SERVER_PORT", "9000"),
        ("TICKERD_PORT", "9000"),
        ("TICKERD_PORT", "tcp://10.0.0.7"),
        ("TICKERD_PORT", "tcp://10.0.0.7:0"),
        ("TICKERD_PORT", "http://10.0.0.7:80"),
        ("TICKERD_SERVICE_HOST", "0.0.0.0"),
        ("TICKERD_SERVICE_HOST", "::1"),
        ("TICKERD_SERVICE_HOST", "localhost"),
        ("TICKERD_SERVICE_PORT", "http"),
        ("TICKERD_SERVICE_PORT", "0"),
        ("TICKERD_NAME", "prices"),
        ("TICKERD_SERVER_NAME", "ticker.example.org"),
        ("TICKERD_PORT_8000", "tcp://10.0.0.7:8000"),
        ("TICKERD_PORT_8000_TCP_PROTO", "http"),
        ("TICKERD_HOST", "10.0.0.7"),
        ("TICKERD_ENV", "production"),
        ("TICKERD_CHANNELS__A_ENV_B__CADENC_S", "5"),
        ("TICKERD__SERVER__PORT", "9000"),
    ],
)
def test_a_mistake_of_a_persons_is_still_one(variable: str, value: str) -> None:
    with pytest.raises(ConfigError) as refused:
        config(service("tickerd") | {variable: value})
    [line] = refused.value.errors
    assert line.startswith(f"{variable}: unknown variable; ")


def test_a_setting_of_ours_stays_one_whatever_its_name_looks_like() -> None:
    read = parse(
        "channels.x_env_y = {connector = 'binance', kind = 'prices', instrument = 'BTC/USDT'}",
        {"TICKERD_CHANNELS__X_ENV_Y__CADENCE_S": "7"},
        "a test",
    )
    assert read.warnings == ()
    assert read.catalogue()["x_env_y"].cadence_s == 7.0


def test_a_setting_of_ours_with_a_neighbours_value_is_refused_by_its_name() -> None:
    with pytest.raises(ConfigError, match=r'^server\.port \(from TICKERD_SERVER__PORT\): got "tcp://10\.0\.0\.7:8000"'):
        config({"TICKERD_SERVER__PORT": "tcp://10.0.0.7:8000"})


@given(
    st.sampled_from([key for key in reader.keys(File) if "NAME" not in key]),
    st.sampled_from(["8000", "10.0.0.7", "/web/db", "tcp"]),
    st.integers(0, 40),
    st.sampled_from(string.ascii_uppercase + "_"),
)
def test_one_wrong_letter_in_a_variable_of_ours_is_never_taken_for_a_neighbours(
    key: str, value: str, at: int, letter: str
) -> None:
    right = f"TICKERD_{key.replace('.', '__').upper()}"
    start = len("TICKERD_")
    at = start + at % (len(right) - start)
    wrong = right[:at] + letter + right[at + 1 :]
    if reader.is_setting(File, wrong):
        return
    with pytest.raises(ConfigError, match="unknown variable"):
        config({wrong: value})
