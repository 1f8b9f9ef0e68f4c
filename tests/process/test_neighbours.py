"""A daemon among Kubernetes' variables about a service of its own name starts, and says once what it passed over."""

from tests.process.running import tickerd

SERVICE = {
    "TICKERD_SERVICE_HOST": "10.0.0.7",
    "TICKERD_SERVICE_PORT": "8000",
    "TICKERD_SERVICE_PORT_HTTP": "8000",
    "TICKERD_PORT": "tcp://10.0.0.7:8000",
    "TICKERD_PORT_8000_TCP": "tcp://10.0.0.7:8000",
    "TICKERD_PORT_8000_TCP_PROTO": "tcp",
    "TICKERD_PORT_8000_TCP_PORT": "8000",
    "TICKERD_PORT_8000_TCP_ADDR": "10.0.0.7",
    "TICKERD_SIM_SERVICE_HOST": "10.0.0.8",
}


def test_it_starts_and_warns_once() -> None:
    with tickerd("demo", "--port", "0", environ=SERVICE) as daemon:
        assert daemon.port
        assert daemon.stop() == 0
    [warning] = [line for line in daemon.lines if "passed over" in line]
    assert all(name in warning for name in SERVICE)


def test_with_a_typo_among_them_it_does_not_start() -> None:
    with tickerd("run", environ=SERVICE | {"TICKERD_SERVER__PROT": "9000"}) as daemon:
        assert daemon.wait() == 78
    assert daemon.lines == [
        "tickerd: TICKERD_SERVER__PROT: unknown variable; nearest is TICKERD_SERVER__PORT",
    ]
