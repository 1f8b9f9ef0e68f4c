"""`[cluster]`: what is refused and why, where the password may come from, and that it shows nowhere."""

from pathlib import Path

import pytest

from daemon.config.changes import fixed_keys
from daemon.config.load import Config, ConfigError, parse
from daemon.publish.cluster.settings import Cluster, Keys

URL = '[cluster]\nurl = "redis://engine:7000"\n'
SECRET = "hunter2-of-the-engine"


def loaded(text: str, environ: dict[str, str] | None = None, secrets: Path | None = None) -> Config:
    return parse(text, environ or {}, "the file", secrets)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (f'{URL}[tape]\npath = "/var/lib/tape"', 'tape.path: got "/var/lib/tape"; allowed: "" in a cluster'),
        ('[cluster]\nurl = "http://engine"', 'cluster.url: got "http://engine"; allowed: redis://HOST:PORT/DB'),
        (
            f'[cluster]\nurl = "redis://:{SECRET}@engine"',
            "cluster.url: got a URL with an @; allowed: no password in it",
        ),
        (f'{URL}ca = "/nowhere.pem"', 'cluster.ca: got "/nowhere.pem"; allowed: the path of a file that exists'),
        (f'{URL}role = "lead"', 'cluster.role: got "lead"; allowed: '),
        (f"{URL}lease_s = 0.5", "cluster.lease_s: got 0.5; allowed: "),
        (f'{URL}name = "a b"', 'cluster.name: got "a b"; allowed: letters, digits, dots, - and _; up to 63'),
        (f'{URL}node = "{{x}}"', 'cluster.node: got "{x}"; allowed: letters, digits, dots, - and _; up to 63'),
        (f'{URL}password = "{SECRET} x"', "cluster.password: "),
    ],
)
def test_what_cannot_be_used_is_named_with_what_is_allowed(text: str, line: str) -> None:
    with pytest.raises(ConfigError) as refused:
        loaded(text)
    [error] = refused.value.errors
    assert error.startswith(line)
    assert SECRET not in error


def test_without_a_url_the_rest_of_it_is_not_looked_at() -> None:
    assert loaded('[cluster]\nca = "/nowhere.pem"').cluster == Cluster(ca="/nowhere.pem")


def test_the_password_comes_by_a_credential_or_the_environment(tmp_path: Path) -> None:
    (tmp_path / "cluster_password").write_text(f"{SECRET}\n")
    config = loaded(URL, secrets=tmp_path)
    assert config.cluster.password == SECRET
    assert SECRET not in repr(config)
    other = loaded(URL, {"TICKERD_CLUSTER__PASSWORD": "another"}, tmp_path)
    assert other.cluster.password == "another"
    [warning] = loaded("", secrets=tmp_path).warnings
    assert warning == "the credential cluster_password is not used: cluster.url is not set"


def test_a_node_may_have_workers_and_one_without_clients_has_no_use_for_them() -> None:
    for role in ("both", "serve"):
        config = loaded(f'{URL}role = "{role}"\n[server]\nworkers = 3')
        assert (config.server.worker_count, config.warnings) == (3, ())
    [warning] = loaded(f'{URL}role = "ingest"\n[server]\nworkers = 3').warnings
    assert warning == 'server.workers = 3 has no effect: a node whose cluster.role is "ingest" has no clients'
    assert loaded(f'{URL}role = "ingest"').warnings == ()
    assert loaded("[server]\nworkers = 3").warnings == ()


def test_a_reload_changes_none_of_it() -> None:
    before, after = loaded(URL), loaded(f'{URL}role = "serve"\nlease_s = 9')
    assert fixed_keys(before, after) == ["cluster.role", "cluster.lease_s"]


def test_a_node_is_called_as_its_host_unless_it_has_a_name() -> None:
    assert Cluster(node="ams1").node_name == "ams1"
    assert Cluster().node_name
    assert [Cluster(role=role).ingests for role in ("both", "ingest", "serve")] == [True, True, False]
    assert [Cluster(role=role).serves for role in ("both", "ingest", "serve")] == [True, False, True]


def test_all_keys_of_a_cluster_are_in_one_slot_of_a_redis_cluster() -> None:
    keys = Keys("main")
    assert keys.tape == "tickerd:{main}:tape"
    assert all("{main}" in key for key in (keys.state, keys.leader, keys.up, keys.nodes))
