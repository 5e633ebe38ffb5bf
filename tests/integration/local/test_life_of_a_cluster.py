"""Up, repair, down: what a cluster leaves alone and what it leaves behind."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from nightshard.core.errors import NightshardError, UserError
from nightshard.core.settings import PROJECT_ROOT
from nightshard.local.cluster import LocalCluster, SshAccess
from nightshard.local.foreground import serve
from nightshard.local.info import ClusterInfo
from nightshard.local.processes import MARKER, Process, descendants, environment_of, wait_until
from nightshard.local.slurm_config import Overrides

pytestmark = pytest.mark.integration


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[LocalCluster]:
    cluster = LocalCluster(tmp_path / "cluster")
    yield cluster
    cluster.down()


def slurm(info: ClusterInfo, *command: str) -> str:
    done = subprocess.run(
        command, env=info.environment(), capture_output=True, text=True, check=True, cwd="/"
    )
    return done.stdout.strip()


def ssh(info: ClusterInfo, command: str) -> subprocess.Popen[str]:
    """Run a command over the ordinary ssh client, strict about the host key."""
    # The client expands percent signs in file names; the cluster's plain name has none.
    keys = info.slurm_conf.parents[1] / "ssh"
    return subprocess.Popen(
        [
            *("ssh", "-F", "none", "-i", str(keys / "id_ed25519"), "-p", str(info.ssh_port)),
            *("-o", f"UserKnownHostsFile={keys}/known_hosts", "-o", "StrictHostKeyChecking=yes"),
            *("-o", "BatchMode=yes", f"{info.ssh_user}@{info.ssh_host}", command),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )


def processes_of(root: Path) -> list[str]:
    """Everything alive that names the cluster's folder in its command line or environment."""
    found = []
    for process in psutil.process_iter():
        try:
            mentioned = any(str(root) in word for word in process.cmdline())
            marked = f"{MARKER}={root}".encode() in environment_of(process.pid)
            if (mentioned or marked) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(f"{process.pid} {process.cmdline()}")
        except psutil.Error:
            continue
    return found


def test_a_second_up_keeps_every_process(cluster: LocalCluster) -> None:
    first = cluster.up()
    second = cluster.up()
    assert second == first
    assert first.pids.keys() == {"munged", "slurmctld", "sshd", *first.nodes}
    assert cluster.status() == first


def test_up_repairs_what_died_and_keeps_what_lives(cluster: LocalCluster) -> None:
    before = cluster.up()
    killed = {before.pids[name] for name in ("node2", "sshd")}
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    wait_until(
        lambda: not killed & set((cluster.status() or before).pids.values()),
        what="both are seen to be gone",
    )
    status = cluster.status()
    assert status is not None
    assert status.missing == ("node2", "sshd")

    after = cluster.up()

    changed = {name for name in after.pids if after.pids[name] != before.pids[name]}
    assert changed == {"node2", "sshd"}
    assert after.ssh_port == before.ssh_port
    assert slurm(after, "srun", "--nodelist=node2", "echo", "works") == "works"


def test_up_restarts_on_changed_settings(cluster: LocalCluster) -> None:
    before = cluster.up()
    changed = LocalCluster(cluster.root, overrides=Overrides(max_array_size=11))
    after = changed.up()
    assert after.pids["slurmctld"] != before.pids["slurmctld"]
    assert "MaxArraySize            = 11" in slurm(after, "scontrol", "show", "config")
    assert after.ssh_port == before.ssh_port


def test_accounting_can_be_added_to_a_cluster_and_taken_away(cluster: LocalCluster) -> None:
    cluster.up()
    accounted = LocalCluster(cluster.root, accounting=True).up()
    assert accounted.accounting
    assert slurm(accounted, "sacct", "--noheader") == ""
    plain = cluster.up()
    assert plain.pids.keys() == accounted.pids.keys() - {"slurmdbd", "mariadbd"}


def test_two_ups_at_once_start_one_cluster(cluster: LocalCluster) -> None:
    found: list[ClusterInfo] = []
    threads = [
        threading.Thread(target=lambda: found.append(LocalCluster(cluster.root).up()))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found[0] == found[1]


SLEEPS = [["sleep", f"{n}.25"] for n in (1000, 2000, 3000, 4000)]


def test_down_leaves_no_process_not_even_of_jobs_and_sessions(cluster: LocalCluster) -> None:
    info = cluster.up()
    log = info.shared / "job.log"
    stubborn = "trap '' TERM; sleep 1000.25 & setsid sleep 2000.25 & echo started; wait"
    slurm(info, "sbatch", f"--output={log}", f"--wrap={stubborn}")
    slurm(info, "sbatch", "--export=NONE", f"--output={log}2", f"--wrap={stubborn}")
    session = ssh(info, "echo started; setsid sleep 3000.25 & exec sleep 4000.25")
    assert session.stdout is not None
    assert session.stdout.readline() == "started\n"
    for path in (log, Path(f"{log}2")):
        wait_until(lambda path=path: path.exists() and "started" in path.read_text(), what="job")
    sleeps = [p for p in psutil.process_iter(["cmdline"]) if p.info["cmdline"] in SLEEPS]
    assert len(sleeps) == 6
    family = {psutil.Process(pid) for pid in descendants(info.pids.values())}
    family |= {p for sleep in sleeps for p in [sleep, *sleep.parents()] if p.pid != 1}
    assert {"slurmstepd", "sshd", "sleep"} <= {process.name() for process in family}
    # What a killed slurmd leaves behind counts as well.
    os.kill(info.pids["node1"], signal.SIGKILL)

    cluster.down()

    assert [p for p in family if p.is_running() and Process.of(p.pid)] == []
    assert processes_of(info.root) == []
    assert session.wait(10) != 0
    session.stdout.close()
    assert cluster.status() is None


def test_down_leaves_a_shell_alone_that_only_uses_the_cluster(cluster: LocalCluster) -> None:
    info = cluster.up()
    shell = subprocess.Popen(["sleep", "100"], env={**os.environ, **info.environment()})
    cluster.down()
    assert shell.poll() is None
    shell.kill()
    shell.wait()


def test_jobs_of_a_cluster_that_went_down_do_not_come_back(cluster: LocalCluster) -> None:
    info = cluster.up()
    slurm(info, "sbatch", "--output=/dev/null", "--wrap=sleep 1000")
    slurm(info, "sbatch", "--output=/dev/null", "--hold", "--wrap=sleep 1000")
    cluster.down()
    again = cluster.up()
    assert slurm(again, "squeue", "--noheader") == ""
    assert again.ssh_port == info.ssh_port
    assert again.host_key == info.host_key


def test_a_foreign_program_on_a_port_is_left_alone(cluster: LocalCluster) -> None:
    port = cluster.up().ssh_port
    cluster.down()
    with socket.create_server(("127.0.0.1", port)):
        info = cluster.up()
        assert info.ssh_port != port
        assert f"[127.0.0.1]:{info.ssh_port} {info.host_key}\n" == info.known_hosts.read_text()


def test_a_port_that_was_insisted_on_and_is_taken_gets_one_sentence(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as foreign:
        port = foreign.getsockname()[1]
        cluster = LocalCluster(tmp_path / "c", access=SshAccess(port=port))
        with pytest.raises(UserError, match=f"Another program listens on port {port}; stop it"):
            cluster.up()
    assert processes_of(tmp_path / "c") == []


def test_two_clusters_live_side_by_side(cluster: LocalCluster, tmp_path: Path) -> None:
    other = LocalCluster(tmp_path / "other")
    try:
        first, second = cluster.up(), other.up()
        job = slurm(first, "sbatch", "--parsable", "--output=/dev/null", "--wrap=sleep 100")
        assert slurm(first, "squeue", "--noheader", "--format=%i") == job
        assert slurm(second, "squeue", "--noheader") == ""
    finally:
        other.down()
    assert cluster.status() == first


@pytest.mark.parametrize("name", ["long-" + "x" * 150, "with a blank, a comma and 100%"])
def test_long_and_odd_folders_work(tmp_path: Path, name: str) -> None:
    cluster = LocalCluster(tmp_path / name)
    try:
        info = cluster.up()
        session = ssh(info, 'srun sh -c "echo works; sleep 0"')
        assert session.communicate()[0] == "works\n"
        link = info.slurm_conf.parents[2]
    finally:
        cluster.down()
    assert not link.exists()


def test_a_daemon_that_cannot_start_is_named_with_its_log(cluster: LocalCluster) -> None:
    cluster.layout.make()
    (cluster.root / "etc/munge.key").write_text("short")
    with pytest.raises(NightshardError, match=r"did not start: munged ended .*Keyfile must be"):
        cluster.up()
    assert processes_of(cluster.root) == []


def test_the_foreground_cluster_repairs_itself_and_ends_on_request(cluster: LocalCluster) -> None:
    stop = threading.Event()
    served = threading.Thread(target=serve, args=(cluster, stop, 0.05))
    served.start()
    try:
        wait_until((cluster.root / "cluster.json").exists, what="cluster")
        before = ClusterInfo.from_json((cluster.root / "cluster.json").read_text())
        os.kill(before.pids["node3"], signal.SIGKILL)

        def repaired() -> bool:
            status = cluster.status()
            return status is not None and status.pids.get("node3") not in {
                None,
                before.pids["node3"],
            }

        wait_until(repaired, what="repair")
    finally:
        stop.set()
        served.join()
    assert cluster.status() is None


@pytest.fixture
def ordinary_user() -> Iterator[str]:
    """A throw-away user; tests that already run as one need none."""
    if os.geteuid() != 0:
        pytest.skip("the other tests run as an ordinary user already")
    name = f"nightshard{os.getpid() % 100000}"
    subprocess.run(["useradd", "--no-create-home", "--home-dir", "/nonexistent", name], check=True)
    yield name
    subprocess.run(["userdel", name], check=False)


RUNUSER = shutil.which("runuser", path="/usr/sbin:/usr/bin:/sbin:/bin") or "runuser"

USER_SCRIPT = """
import subprocess, sys
from pathlib import Path
from nightshard.local.cluster import running
with running(Path(sys.argv[1]) / "cluster", accounting=True) as info:
    ssh = ["ssh", "-F", "none", "-i", info.ssh_key, "-p", str(info.ssh_port), "-o", "BatchMode=yes",
           "-o", f"UserKnownHostsFile={info.known_hosts}", "-o", "StrictHostKeyChecking=yes",
           f"{info.ssh_user}@127.0.0.1"]
    wrap = "sbatch --wait --output=/dev/null --array=0-3 --gres=gpu:1 --wrap=true && id -un"
    print(subprocess.run([*ssh, wrap], stdout=subprocess.PIPE, text=True, check=True).stdout)
"""


def test_an_ordinary_user_without_a_home_can_do_it_all(ordinary_user: str, tmp_path: Path) -> None:
    # A user who can read neither root's home nor pytest's folders needs a Python of the system.
    python = shutil.which("python3", path="/usr/bin:/usr/local/bin")
    sources = os.pathsep.join(
        [str(PROJECT_ROOT / "plugins"), *(p for p in sys.path if p.endswith("site-packages"))]
    )
    if python is None or not can_import(python, sources):
        pytest.skip("no Python of the system that an ordinary user may run")
    folder = Path(f"/tmp/{ordinary_user}")
    folder.mkdir(mode=0o700)
    os.chown(folder, pwd.getpwnam(ordinary_user).pw_uid, -1)
    try:
        done = subprocess.run(
            [RUNUSER, "-u", ordinary_user, "--", python, "-c", USER_SCRIPT, str(folder)],
            env={
                "PATH": "/usr/bin:/bin",
                "HOME": "/nonexistent",
                "PYTHONPATH": sources,
                "NIGHTSHARD_STATE": str(folder / "state"),
            },
            capture_output=True,
            text=True,
            cwd="/",
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.split()[-1] == ordinary_user
        uid = pwd.getpwnam(ordinary_user).pw_uid
        left = [p for p in psutil.process_iter() if uid in p.uids() and Process.of(p.pid)]
        assert left == []
    finally:
        shutil.rmtree(folder)


def can_import(python: str, sources: str) -> bool:
    done = subprocess.run(
        [python, "-c", "import nightshard.local.cluster, asyncssh"],
        env={"PYTHONPATH": sources, "PATH": "/usr/bin"},
        capture_output=True,
        check=False,
    )
    return done.returncode == 0
