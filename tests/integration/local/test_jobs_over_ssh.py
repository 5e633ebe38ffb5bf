"""A cluster does what its users need: jobs over the real sshd, GPUs, accounting."""

import asyncio
import json
import re
import time
from pathlib import Path

import asyncssh
import pytest
from integration.fixtures.clusters import connect, run

from nightshard.local.info import ClusterInfo

pytestmark = pytest.mark.integration


async def finished(connection: asyncssh.SSHClientConnection, job: str) -> list[str]:
    """Wait for a job's end; the states of its elements."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        states = (
            await run(connection, f"squeue -j {job} --array --noheader -t all --format=%T")
        ).split()
        if states and all(s not in {"PENDING", "RUNNING", "COMPLETING"} for s in states):
            return states
        await asyncio.sleep(0.1)
    raise AssertionError(f"job {job} did not end: {states}")


async def array_of_gpus(info: ClusterInfo, folder: Path) -> tuple[str, list[str], list[str]]:
    """Submit four elements with a GPU each; their job id, states, and what each wrote."""
    folder.mkdir()
    body = 'echo "$SLURMD_NODENAME $CUDA_VISIBLE_DEVICES"; sleep 1.5'
    async with connect(info) as connection:
        job = await run(
            connection,
            f"sbatch --parsable --array=0-3 --exclude=node3,node4 --gres=gpu:1 "
            f"--output={folder}/%a.log --wrap='{body}'",
        )
        states = await finished(connection, job)
    return job, states, [(folder / f"{i}.log").read_text().strip() for i in range(4)]


async def test_an_array_submitted_over_ssh_completes_with_a_gpu_for_each_element(
    local_cluster: ClusterInfo,
) -> None:
    _, states, written = await array_of_gpus(local_cluster, local_cluster.shared / "gpus")

    assert states == ["COMPLETED"] * 4
    # All four ran at the same time on two nodes, so each saw a GPU that no other saw.
    assert sorted(written) == ["node1 0", "node1 1", "node2 0", "node2 1"]


async def test_sacct_says_that_accounting_is_disabled_where_it_is(
    local_cluster: ClusterInfo,
) -> None:
    async with connect(local_cluster) as connection:
        done = await connection.run("sacct")
    assert done.exit_status == 1
    assert "accounting storage is disabled" in str(done.stderr)


async def test_sacct_knows_every_element_of_a_finished_array(
    local_cluster_with_accounting: ClusterInfo,
) -> None:
    info = local_cluster_with_accounting
    job, states, _ = await array_of_gpus(info, info.shared / "accounted")
    assert states == ["COMPLETED"] * 4
    async with connect(info) as connection:
        deadline = time.monotonic() + 30
        rows: list[str] = []
        # slurmdbd learns of a job's end a little later than squeue.
        while time.monotonic() < deadline and rows.count("COMPLETED|0:0") < 4:
            shown = await run(connection, f"sacct -X -n -P -j {job} -o JobID,State,ExitCode")
            rows = [line.split("|", 1)[1] for line in shown.splitlines()]
            await asyncio.sleep(0.1)
    assert sorted(line.split("|")[0] for line in shown.splitlines()) == [
        f"{job}_{i}" for i in range(4)
    ]
    assert rows == ["COMPLETED|0:0"] * 4


async def test_a_key_of_another_host_is_refused(local_cluster: ClusterInfo, tmp_path: Path) -> None:
    other = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode()
    address = f"[{local_cluster.ssh_host}]:{local_cluster.ssh_port}"
    (tmp_path / "known_hosts").write_text(f"{address} {other}")
    with pytest.raises(asyncssh.HostKeyNotVerifiable):
        await connect(local_cluster, known_hosts=str(tmp_path / "known_hosts"))


async def test_only_the_clusters_own_key_logs_in(local_cluster: ClusterInfo) -> None:
    with pytest.raises(asyncssh.PermissionDenied):
        await connect(local_cluster, client_keys=[asyncssh.generate_private_key("ssh-ed25519")])


async def test_files_travel_over_sftp_into_the_shared_folder(local_cluster: ClusterInfo) -> None:
    async with (
        connect(local_cluster) as connection,
        connection.start_sftp_client() as sftp,
        sftp.open(f"{local_cluster.shared}/note", "w") as remote,
    ):
        await remote.write("hello")
    assert (local_cluster.shared / "note").read_text() == "hello"


async def test_a_jobs_environment_names_its_cluster_and_no_library_path(
    local_cluster: ClusterInfo,
) -> None:
    log = local_cluster.shared / "environment.log"
    async with connect(local_cluster) as connection:
        job = await run(connection, f"sbatch --parsable --output={log} --wrap=env")
        await finished(connection, job)
    names = {line.partition("=")[0] for line in log.read_text().splitlines()}
    assert "SLURM_CONF" in names
    assert "LD_LIBRARY_PATH" not in names


async def test_the_airflow_connection_reaches_sshd_with_its_host_key_checked(
    local_cluster: ClusterInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.providers.ssh.hooks.ssh import SSHHook

    value = json.dumps(local_cluster.airflow_connection())
    monkeypatch.setenv("AIRFLOW_CONN_LOCAL_CLUSTER", value)
    with SSHHook("local_cluster").get_conn() as client:
        _, output, _ = client.exec_command("sinfo --noheader --format=%P")
        assert re.findall(r"\w+", output.read().decode()) == ["main", "hi"]
    assert "PRIVATE" not in value
