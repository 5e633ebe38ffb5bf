"""What the extras of a connection mean."""

import json
from pathlib import Path

import asyncssh
import pytest
from airflow.providers.ssh.hooks.ssh import SSHHookAsync
from airflow.sdk import Connection

from nightshard.clusters.held_socket import HeldSocket
from nightshard.clusters.login import Login
from nightshard.clusters.profile import load_named
from nightshard.core.errors import UserError
from nightshard.core.settings import Settings
from nightshard.orchestration.connection_extras import ConnectionValues, way_in
from nightshard.orchestration.connections import open_transport

pytestmark = pytest.mark.unit

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJK1J0yzXXwPTgXnLEPLkXFUFBj1NQXwHkLBOjOZJFRV"


def login(extra: dict[str, object], port: int | None = 2222) -> Login:
    way = way_in(ConnectionValues("c", "host", port, "me", None, extra))
    assert isinstance(way, Login)
    return way


@pytest.mark.parametrize("port", [None, 22, 2222])
@pytest.mark.parametrize("key", [KEY, f"{KEY} a comment", KEY.split()[1]])
def test_a_host_key_trusts_what_the_providers_hook_trusts(key: str, port: int | None) -> None:
    if key == KEY.split()[1]:  # a bare key is RSA
        rsa = asyncssh.generate_private_key("ssh-rsa", key_size=2048)
        key = rsa.export_public_key().decode().split()[1]
    extra = {"host_key": key}
    hook = SSHHookAsync("c")
    hook._parse_extras(Connection(conn_id="c", host="host", extra=json.dumps(extra)))

    trusted = login(extra, port).endpoint.known_hosts

    assert isinstance(trusted, bytes)
    ours = asyncssh.match_known_hosts(trusted, "host", "", port or 22)
    assert ours[0] == asyncssh.match_known_hosts(hook.known_hosts, "host", "", port or 22)[0]
    assert len(ours[0]) == 1


def test_the_providers_extras_are_kept() -> None:
    made = login({"key_file": "/k", "private_key_passphrase": "p", "known_hosts": "/etc/kh"})
    assert (made.key_file, made.passphrase) == (Path("/k"), "p")
    assert made.endpoint.known_hosts == Path("/etc/kh")
    assert login({}).endpoint.known_hosts == Path("~/.ssh/known_hosts").expanduser()
    assert login({"private_key": "text", "passphrase": "q"}).private_key == "text"
    assert not login({"look_for_keys": "false"}).default_keys
    assert login({"conn_timeout": "7"}).timeout_s == 7


@pytest.mark.parametrize(
    ("agent", "meaning"),
    [(True, True), ("true", True), (False, False), (None, None), ("", None), ("/a", Path("/a"))],
)
def test_an_agent_is_asked_for_in_words_or_by_path(agent: object, meaning: object) -> None:
    assert login({"agent": agent}).agent == meaning


def test_no_secret_shows_in_what_is_printed() -> None:
    extra = {"private_key": "SECRET", "passphrase": "SECRET"}
    values = ConnectionValues("c", "host", 22, "me", "SECRET", extra)
    assert "SECRET" not in repr(values) + repr(way_in(values))


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ({"host_key": "nonsense"}, "host_key of the connection 'c' cannot be read"),
        ({"host_key": "ssh-dss AAAA"}, "host_key of the connection 'c' cannot be read"),
        ({"conn_timeout": "soon"}, "is no number of seconds"),
        ({"control_path": "relative"}, "is no absolute path"),
        ({"control_path": "/tmp/%r@%h"}, "is no absolute path without %"),
        ({"control_path": "/tmp/x", "jump": "b"}, "has both control_path and jump"),
        ({"known_hosts": "none"}, "switches host key checks off"),
        ({"no_host_key_check": True, "control_path": "/x"}, "switches host key checks off"),
    ],
)
def test_an_extra_that_cannot_be_used_is_named(extra: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        way_in(ConnectionValues("c", "host", 22, "me", None, extra))


def test_a_control_path_is_a_held_login() -> None:
    way = way_in(ConnectionValues("c", "host", 22, "me", None, {"control_path": "/tmp/x"}))
    assert isinstance(way, HeldSocket)
    assert way.login_line().startswith("ssh -M -S /tmp/x -N -f")
    assert way.login_line().endswith(" me@host")


def add(monkeypatch: pytest.MonkeyPatch, name: str, **extra: object) -> None:
    value = {"conn_type": "ssh", "host": "127.0.0.1", "port": 9, "login": "me", "extra": extra}
    monkeypatch.setenv(f"AIRFLOW_CONN_{name.upper()}", json.dumps(value))


async def first_sentence(monkeypatch: pytest.MonkeyPatch) -> str:
    settings = Settings.from_env({})
    profile = load_named(settings.clusters, "local", settings.variables({}))
    async with open_transport(profile) as transport:
        with pytest.raises(UserError) as caught:
            await transport.run(["true"])
    return str(caught.value)


async def test_jump_hosts_in_a_circle_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    add(monkeypatch, "nightshard_local", jump="b", host_key=KEY)
    add(monkeypatch, "b", jump="nightshard_local", host_key=KEY)
    said = await first_sentence(monkeypatch)
    assert "go in a circle (nightshard_local -> b -> nightshard_local)" in said


async def test_a_missing_jump_connection_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    add(monkeypatch, "nightshard_local", jump="absent", host_key=KEY)
    said = await first_sentence(monkeypatch)
    assert "no connection 'absent', which the connection 'nightshard_local' as its jump" in said


async def test_a_jump_host_that_checks_no_key_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    add(monkeypatch, "nightshard_local", jump="b", host_key=KEY)
    add(monkeypatch, "b", no_host_key_check=True)
    assert "'b' switches host key checks off" in await first_sentence(monkeypatch)


async def test_a_failed_hop_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    add(monkeypatch, "nightshard_local", jump="b", host_key=KEY)
    add(monkeypatch, "b", host_key=KEY)
    assert "the jump host on the way to 127.0.0.1) are refused" in await first_sentence(monkeypatch)


async def test_a_held_login_that_is_gone_says_how_to_log_in(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    add(monkeypatch, "nightshard_local", control_path=str(tmp_path / "x"))
    said = await first_sentence(monkeypatch)
    assert f"log in again with: ssh -M -S {tmp_path / 'x'} -N -f" in said
