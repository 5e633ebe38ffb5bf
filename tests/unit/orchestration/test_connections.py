"""Host keys are always checked, whatever a connection's extras say."""

import json

import pytest
from airflow.providers.ssh.hooks.ssh import SSHHookAsync
from airflow.sdk import Connection

from nightshard.clusters.profile import load_named
from nightshard.core.errors import UserError
from nightshard.core.settings import Settings
from nightshard.orchestration.connections import check_host_key_is_checked, open_transport

pytestmark = pytest.mark.unit

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJK1J0yzXXwPTgXnLEPLkXFUFBj1NQXwHkLBOjOZJFRV"
OFF = [
    {"no_host_key_check": True},
    {"no_host_key_check": "true"},
    {"ignore_hostkey_verification": "True"},
    {"known_hosts": "None"},
]


@pytest.mark.parametrize("extra", OFF, ids=str)
def test_each_way_to_switch_the_check_off_is_refused_by_name(extra: dict[str, object]) -> None:
    (name,) = extra
    with pytest.raises(UserError, match=f"'example' switches host key checks off; remove {name} "):
        check_host_key_is_checked("example", extra)


@pytest.mark.parametrize("extra", OFF, ids=str)
@pytest.mark.filterwarnings("ignore:.*ignore_hostkey_verification")
def test_those_are_the_ways_of_the_hook(extra: dict[str, object]) -> None:
    hook = SSHHookAsync("example")
    hook._parse_extras(Connection(conn_id="example", host="h", extra=json.dumps(extra)))
    assert str(hook.known_hosts).lower() == "none"


@pytest.mark.parametrize(
    "extra",
    [{}, {"host_key": KEY, "no_host_key_check": False}, {"known_hosts": "/etc/ssh/known_hosts"}],
    ids=str,
)
def test_a_connection_that_checks_is_taken(extra: dict[str, object]) -> None:
    check_host_key_is_checked("example", extra)


def local_transport(monkeypatch: pytest.MonkeyPatch, extra: dict[str, str]):  # type: ignore[no-untyped-def]
    settings = Settings.from_env({})
    profile = load_named(settings.clusters, "local", settings.variables({}))
    where = {"conn_type": "ssh", "host": "127.0.0.1", "port": 9, "login": "me"}
    connection = json.dumps({**where, "extra": extra})
    monkeypatch.setenv("AIRFLOW_CONN_NIGHTSHARD_LOCAL", connection)
    return open_transport(profile)


async def test_nothing_is_sent_where_the_check_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    async with local_transport(monkeypatch, {"known_hosts": "none"}) as transport:
        with pytest.raises(UserError, match="switches host key checks off"):
            await transport.run(["true"])


async def test_a_failed_login_names_host_and_port(monkeypatch: pytest.MonkeyPatch) -> None:
    async with local_transport(monkeypatch, {"host_key": KEY}) as transport:
        with pytest.raises(UserError, match=r"127\.0\.0\.1 port 9 are refused"):
            await transport.run(["true"])
