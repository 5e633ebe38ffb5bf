"""Finding and stopping processes: only what belongs to a cluster, and never by a reused id."""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from nightshard.core.errors import UserError
from nightshard.local import processes as ps

pytestmark = pytest.mark.unit


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["sleep", "100"], env={"SLURM_CONF": "/c/etc/slurm.conf"})
    yield process
    process.kill()
    process.wait()


def test_a_reused_id_is_not_taken_for_the_process(sleeper: subprocess.Popen[bytes]) -> None:
    real = ps.Process.of(sleeper.pid)
    assert real is not None
    assert real.alive()
    other = ps.Process(real.pid, real.started + 1)
    assert not other.alive()
    other.send(9)
    assert sleeper.poll() is None


def test_a_zombie_counts_as_ended(sleeper: subprocess.Popen[bytes]) -> None:
    process = ps.Process.of(sleeper.pid)
    assert process is not None
    sleeper.kill()
    ps.wait_until(lambda: not process.alive(), what="sleep", timeout=5)
    assert Path(f"/proc/{sleeper.pid}").exists()
    assert ps.Process.of(sleeper.pid) is None


def test_a_daemon_outlives_its_starter_and_logs(tmp_path: Path) -> None:
    log = tmp_path / "log"
    process = ps.start(["/bin/sh", "-c", "echo hello; exec sleep 100"], {"PATH": "/bin"}, log)
    try:
        ps.wait_until(lambda: "hello" in ps.log_tail(log), what="sh", timeout=5)
        assert process.alive()
        assert os.getsid(process.pid) == process.pid
    finally:
        ps.stop([process])
    assert not process.alive()


def test_a_program_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ps.DaemonError, match="nothing could not be started"):
        ps.start([tmp_path / "nothing"], {}, tmp_path / "log")


def test_a_process_that_ignores_the_request_to_end_is_killed(tmp_path: Path) -> None:
    log = tmp_path / "log"
    stubborn = "trap '' TERM; echo ready; while :; do sleep 0.1; done"
    process = ps.start(["/bin/sh", "-c", stubborn], {"PATH": "/bin:/usr/bin"}, log)
    ps.wait_until(lambda: ps.log_tail(log) == "ready", what="sh", timeout=5)
    ps.stop([process], grace=0.1)
    assert not process.alive()


def test_a_daemon_that_ends_while_it_is_awaited_is_reported_with_its_log(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("one\nport in use\n")
    with pytest.raises(ps.DaemonError, match=r"^d ended while starting: one \| port in use$"):
        ps.wait_until(lambda: False, what="d", alive=lambda: False, log=tmp_path / "log")


def test_waiting_ends(tmp_path: Path) -> None:
    with pytest.raises(ps.DaemonError, match="d did not answer within 0 seconds"):
        ps.wait_until(lambda: False, what="d", timeout=0.1)


def test_ports_are_distinct_free_and_not_the_avoided_ones() -> None:
    ports = ps.free_ports(20)
    assert len({*ports}) == 20
    assert all(ps.FIRST_PORT <= port <= ps.LAST_PORT for port in ports)
    most = {*range(ps.FIRST_PORT, ps.LAST_PORT + 1)} - {ports[0]}
    assert ps.free_ports(1, avoid=most) == [ports[0]]


def test_too_few_free_ports_get_one_sentence() -> None:
    everything = range(ps.FIRST_PORT, ps.LAST_PORT + 1)
    with pytest.raises(UserError, match=r"^Only 0 of 2 needed ports between \d+ and \d+ are free;"):
        ps.free_ports(2, avoid=everything)


def test_a_port_with_a_listener_is_not_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert not ps.port_is_free(port)
        assert ps.accepts_tcp(port)
    assert ps.port_is_free(port)
    assert not ps.accepts_tcp(port)


def test_a_lock_lets_one_in_at_a_time(tmp_path: Path) -> None:
    order: list[str] = []
    entered = threading.Event()

    def second() -> None:
        entered.set()
        with ps.locked(tmp_path / "lock"):
            order.append("second")

    with ps.locked(tmp_path / "lock"):
        thread = threading.Thread(target=second)
        thread.start()
        entered.wait()
        thread.join(0.1)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


def test_marked_finds_a_clusters_processes_and_jobs_but_no_users_shell(
    sleeper: subprocess.Popen[bytes],
) -> None:
    conf, root = Path("/c/etc/slurm.conf"), Path("/c")
    daemon = subprocess.Popen(["sleep", "100"], env={ps.MARKER: "/c"})
    foreign = subprocess.Popen(["sleep", "100"], env={ps.MARKER: "/c2"})
    job = subprocess.Popen(["sleep", "100"], env={"SLURM_CONF": str(conf), "SLURM_JOB_ID": "7"})
    try:
        found = ps.marked(root, conf)
    finally:
        for process in (daemon, foreign, job):
            process.kill()
            process.wait()
    assert found == {daemon.pid, job.pid}


def test_descendants_include_grandchildren(tmp_path: Path) -> None:
    log = tmp_path / "log"
    script = "sh -c 'sleep 100 & echo $!; wait' & wait"
    top = ps.start(["/bin/sh", "-c", script], {"PATH": "/bin:/usr/bin"}, log)
    ps.wait_until(lambda: ps.log_tail(log).isdigit(), what="sh", timeout=5)
    family = ps.descendants([top.pid])
    ps.stop(ps.identify(family))
    assert {top.pid, int(ps.log_tail(log))} <= family
    assert len(family) == 3


def test_the_caller_and_its_ancestors_are_never_in_the_list_to_stop() -> None:
    mine = ps.own_lineage()
    assert {os.getpid(), os.getppid()} - {1} <= mine
    assert ps.identify(mine) == []
    assert sys.executable
