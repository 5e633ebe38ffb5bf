"""Configuration files: what they say for a release of Slurm, a folder, a test's overrides."""

import dataclasses
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightshard.local.slurm_config import (
    Overrides,
    Ports,
    SlurmSettings,
    cgroup_conf,
    gres_conf,
    slurm_conf,
    slurmdbd_conf,
    sshd_config,
)

pytestmark = pytest.mark.unit

SETTINGS = SlurmSettings(
    base=Path("/b"),
    user="ada",
    host="box",
    ports=Ports(ssh=1, slurmctld=2, slurmd=(3, 4, 5, 6), slurmdbd=7),
    plugin_dirs=(),
    version=(22, 5),
    accounting=False,
    overrides=Overrides(),
)


def values(text: str) -> dict[str, str]:
    return dict(line.partition("=")[::2] for line in text.splitlines())


def test_four_nodes_with_two_gpus_and_their_own_ports() -> None:
    nodes = [line for line in slurm_conf(SETTINGS).splitlines() if line.startswith("NodeName=")]
    assert [re.search(r"Port=(\d+)", node)[1] for node in nodes] == ["3", "4", "5", "6"]  # type: ignore[index]
    assert all("Gres=gpu:2 " in node and "NodeAddr=127.0.0.1 " in node for node in nodes)
    assert gres_conf(SETTINGS).count("NodeName=node1,node2,node3,node4 Name=gpu File=/dev/") == 2


def test_everything_runs_as_the_one_user_on_its_own_ports() -> None:
    conf = values(slurm_conf(SETTINGS))
    assert (conf["SlurmUser"], conf["SlurmdUser"], conf["SlurmctldPort"]) == ("ada", "ada", "2")
    assert conf["AuthInfo"] == "socket=/b/run/munge.socket"


def test_accounting_appears_only_where_asked_for() -> None:
    assert not [key for key in values(slurm_conf(SETTINGS)) if key.startswith("Accounting")]
    conf = values(slurm_conf(dataclasses.replace(SETTINGS, accounting=True)))
    assert conf["AccountingStorageType"] == "accounting_storage/slurmdbd"
    assert conf["AccountingStoragePort"] == "7"
    assert conf["AccountingStoragePass"] == "/b/run/munge.socket"


def test_overrides_reach_the_file() -> None:
    overrides = Overrides(max_array_size=11, min_job_age=5, kill_wait=9, slurmd_timeout=7)
    conf = values(slurm_conf(dataclasses.replace(SETTINGS, overrides=overrides)))
    assert conf["MaxArraySize"] == "11"
    assert conf["MinJobAge"] == "5"
    assert conf["KillWait"] == "9"
    assert conf["SlurmdTimeout"] == "7"


@pytest.mark.parametrize(
    ("version", "text"),
    [
        ((21, 8), "CgroupAutomount=no\n"),
        ((22, 5), "CgroupAutomount=no\n"),
        ((23, 11), "CgroupPlugin=disabled\n"),
        ((24, 11), "CgroupPlugin=disabled\n"),
    ],
)
def test_control_groups_are_left_alone_in_each_releases_words(
    version: tuple[int, int], text: str
) -> None:
    assert cgroup_conf(dataclasses.replace(SETTINGS, version=version)) == text


def test_unpacked_plugins_are_searched_before_installed_ones() -> None:
    folders = (Path("/own/slurm-wlm"), Path("/usr/lib/slurm-wlm"))
    changed = dataclasses.replace(SETTINGS, plugin_dirs=folders)
    for text in (slurm_conf(changed), slurmdbd_conf(changed, "secret")):
        assert values(text)["PluginDir"] == "/own/slurm-wlm:/usr/lib/slurm-wlm"
    assert "PluginDir" not in values(slurm_conf(SETTINGS))


def test_the_database_password_stands_in_slurmdbd_conf_only() -> None:
    accounted = dataclasses.replace(SETTINGS, accounting=True)
    assert values(slurmdbd_conf(accounted, "pass1234"))["StoragePass"] == "pass1234"
    assert "pass1234" not in slurm_conf(accounted)


def sshd(**changes: object) -> list[str]:
    arguments = {
        "base": Path("/b"),
        "user": "ada",
        "bind": "127.0.0.1",
        "port": 22022,
        "environment": {"PATH": "/x:/y", "SLURM_CONF": "/b/etc/slurm.conf"},
    }
    return sshd_config(**{**arguments, **changes}).split("\n")[:-1]  # type: ignore[arg-type]


def test_sshd_listens_on_loopback_and_takes_one_users_key_only() -> None:
    lines = sshd()
    assert "ListenAddress 127.0.0.1" in lines
    assert "Port 22022" in lines
    assert "AllowUsers ada" in lines
    assert "AuthenticationMethods publickey" in lines
    assert "PasswordAuthentication no" in lines


def test_slurms_variables_stand_on_one_line_since_sshd_reads_only_the_first() -> None:
    lines = [line for line in sshd() if line.startswith("SetEnv")]
    assert lines == ['SetEnv "PATH=/x:/y" "SLURM_CONF=/b/etc/slurm.conf"']


def test_newer_openssh_is_told_not_to_punish_and_where_its_helpers_are() -> None:
    lines = sshd(helpers=(("SshdSessionPath", Path("/r/sshd-session")),), penalties=True)
    assert 'SshdSessionPath "/r/sshd-session"' in lines
    assert "PerSourcePenalties no" in lines
    assert not [line for line in sshd() if "Penalties" in line or "SessionPath" in line]


@given(st.text())
def test_no_variable_can_smuggle_a_second_setting_into_sshd_config(value: str) -> None:
    plain = len(sshd())
    try:
        lines = sshd(environment={"PATH": value})
    except ValueError:
        return
    assert len(lines) == plain
    assert f'SetEnv "PATH={value}"' in lines
