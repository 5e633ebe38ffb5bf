"""What a caller learns of a cluster."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightshard.core.errors import UserError
from nightshard.local.cluster import _answers
from nightshard.local.info import ClusterInfo
from nightshard.local.layout import LONGEST_BASE, Layout

pytestmark = pytest.mark.unit

INFO = ClusterInfo(
    root=Path("/r"),
    shared=Path("/r/shared"),
    ssh_host="127.0.0.1",
    ssh_port=22022,
    ssh_user="ada",
    ssh_key=Path("/r/ssh/id_ed25519"),
    known_hosts=Path("/r/ssh/known_hosts"),
    host_key="ssh-ed25519 AAAA",
    slurm_conf=Path("/r/etc/slurm.conf"),
    bin_dirs=(Path("/p/bin"),),
    accounting=True,
    nodes=("node1", "node2"),
    pids={"sshd": 7},
    missing=("node1",),
)


def test_it_is_the_same_after_a_trip_through_its_file() -> None:
    assert ClusterInfo.from_json(INFO.to_json()) == INFO


@given(st.one_of(st.text(), st.recursive(st.none() | st.integers(), st.lists).map(json.dumps)))
def test_another_text_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - whichever sort, callers treat all alike
        ClusterInfo.from_json(text)


def test_the_airflow_connection_names_the_key_file_and_checks_the_host_key() -> None:
    assert INFO.airflow_connection() == {
        "conn_type": "ssh",
        "host": "127.0.0.1",
        "port": 22022,
        "login": "ada",
        "extra": {
            "key_file": "/r/ssh/id_ed25519",
            "host_key": "ssh-ed25519 AAAA",
            "no_host_key_check": False,
        },
    }


def test_slurms_commands_can_be_run_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/usr/bin")
    assert INFO.environment() == {"PATH": "/p/bin:/usr/bin", "SLURM_CONF": "/r/etc/slurm.conf"}


@pytest.mark.parametrize(
    ("line", "answers"),
    [
        ("node1 idle", True),
        ("node1 mixed", True),
        ("node1 drained", True),
        ("node1 idle*", False),
        ("node1 unknown", False),
        ("node1 down", False),
        ("node1 inval", False),
        ("", False),
    ],
)
def test_a_node_counts_once_it_answers(line: str, answers: bool) -> None:
    assert _answers(line) is answers


@given(st.integers(1, 200))
def test_every_folder_has_a_name_short_enough_for_sockets(
    tmp_path_factory: pytest.TempPathFactory, length: int
) -> None:
    layout = Layout(tmp_path_factory.getbasetemp() / ("x" * length))
    layout.make()
    base = layout.base()
    try:
        assert len(str(base)) <= LONGEST_BASE
        assert base.resolve() == layout.root.resolve()
        assert layout.base() == base
    finally:
        layout.drop_alias()
    assert base == layout.root or not base.parent.exists()


def test_a_folder_with_a_quote_in_its_name_gets_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has a quote, a backslash or a control character"):
        Layout(tmp_path / 'a"b')


def test_keys_and_folder_are_private_and_stay_the_same(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "c")
    layout.make()
    host_key = layout.make_keys("127.0.0.1", 1)
    key = layout.ssh_key.read_text()
    assert layout.make_keys("slurm", 2) == host_key
    assert layout.ssh_key.read_text() == key
    assert layout.known_hosts.read_text() == f"[slurm]:2 {host_key}\n"
    private = [layout.root, layout.ssh_key, layout.root / "etc/munge.key"]
    assert [path.stat().st_mode & 0o077 for path in private] == [0, 0, 0]
