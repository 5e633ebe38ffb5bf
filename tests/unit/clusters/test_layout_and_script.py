"""Remote paths are those of the contract, and the batch script holds nothing unquoted."""

import json
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightshard.clusters.layout import RunLayout
from nightshard.clusters.profile import ClusterProfile
from nightshard.clusters.scoring import score_profile
from nightshard.clusters.script import render_script
from nightshard.clusters.submission import Submission
from nightshard.core.errors import UserError
from nightshard.core.settings import PROJECT_ROOT

pytestmark = pytest.mark.unit

TEMPLATES = PROJECT_ROOT / "include" / "sbatch"
LAYOUT = RunLayout(PurePosixPath("/work/ns"), "20261124-model-5f2a9c")

WHOLE = Submission(LAYOUT, 2, range(8), 0, "a2")


def profile(**changes: object) -> ClusterProfile:
    values = {
        "name": "site",
        "title": "Site",
        "ssh_conn_id": "site",
        "workdir": "/work/ns",
        "worker": {"python": "/env/bin/python", "env": {}, "setup": []},
        "models": {"dir": "/models"},
        **changes,
    }
    return ClusterProfile.model_validate(values)


def render(
    chosen: ClusterProfile,
    templates: Path = TEMPLATES,
    submission: Submission = WHOLE,
    exclude: Sequence[str] = (),
) -> str:
    return render_script(
        chosen,
        submission,
        world_size=8,
        max_job_minutes=90,
        worker_zip="/work/ns/worker/shard_worker-0123456789ab.zip",
        templates=templates,
        exclude=exclude,
    )


def test_paths_are_those_of_the_contract() -> None:
    run = "/work/ns/runs/20261124-model-5f2a9c"

    assert str(LAYOUT.spec) == f"{run}/spec.json"
    assert str(LAYOUT.input_file(3, 8)) == f"{run}/inputs/shard-00003-of-00008.parquet"
    assert str(LAYOUT.output_file(3, 8)) == f"{run}/outputs/shard-00003-of-00008.parquet"
    assert str(LAYOUT.manifest(3, 8)) == f"{run}/outputs/shard-00003-of-00008.manifest.json"
    assert str(LAYOUT.progress(3)) == f"{run}/shards/00003/progress.json"
    assert str(LAYOUT.attempt_log(3, 2)) == f"{run}/shards/00003/attempt-2.log"
    assert LAYOUT.log_pattern(2).replace("%5a", "00003") == str(LAYOUT.attempt_log(3, 2))
    assert LAYOUT.job_name("a2") == "ns-20261124-model-5f2a9c-a2"


@pytest.mark.parametrize("key", ["", "-a", "A", "a b", "a/b", "..", "a\n", "a" * 82, "a;b", "ä"])
def test_a_run_key_that_could_harm_is_refused(key: str) -> None:
    with pytest.raises(UserError, match="cannot name a folder"):
        RunLayout(PurePosixPath("/work"), key)


def test_the_options_say_what_nightshard_relies_on() -> None:
    slurm = {"partition": "gpu", "gres": "gpu:1", "extra_directives": ["--reservation=eval"]}
    lines = render(profile(slurm=slurm)).splitlines()

    assert lines[0] == "#!/bin/bash"
    for option in (
        "--job-name=ns-20261124-model-5f2a9c-a2",
        "--array=0-7",
        "--time=90",
        "--no-requeue",
        "--signal=B:USR1@60",
        "--partition=gpu",
        "--gres=gpu:1",
        "--reservation=eval",
    ):
        assert f"#SBATCH {option}" in lines


def test_a_node_that_failed_is_left_out_beside_those_of_the_profile() -> None:
    slurm = {"extra_directives": ["--exclude=old[1-2]", "--reservation=eval"]}

    lines = render(profile(slurm=slurm), exclude=["node7"]).splitlines()

    # Of two such options sbatch obeys the last alone.
    assert [line for line in lines if "exclude" in line] == ["#SBATCH --exclude=node7,old[1-2]"]


def test_a_site_that_requeues_itself_is_left_to_do_so() -> None:
    lines = render(profile(slurm={"requeue": True})).splitlines()

    assert "#SBATCH --requeue" in lines
    assert "#SBATCH --no-requeue" not in lines


def test_set_up_lines_get_a_login_shell_that_knows_module() -> None:
    worker = {"python": "python", "setup": ["module load cuda/12"]}

    lines = render(profile(worker=worker)).splitlines()

    assert lines[0] == "#!/bin/bash -l"
    assert lines.index("module load cuda/12") < lines.index("export PYTHONUNBUFFERED=1")


PRINTABLE = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=40)


@given(PRINTABLE)
def test_any_value_of_a_variable_arrives_as_it_is(value: str) -> None:
    script = render(profile(worker={"python": "/p", "env": {"VALUE": value}}))

    line = next(line for line in script.splitlines() if line.startswith("export VALUE="))
    assert shlex.split(line) == ["export", f"VALUE={value}"]


def test_bash_gives_a_nasty_value_to_the_program() -> None:
    value = '\'; echo harm; "$(id)" `id` \\ #'
    script = render(profile(worker={"python": "/p", "env": {"VALUE": value}}))
    line = next(line for line in script.splitlines() if line.startswith("export VALUE="))

    shown = subprocess.run(
        ["bash", "-c", f'{line}\nprintf %s "$VALUE"'], capture_output=True, text=True, check=True
    )

    assert shown.stdout == value


@pytest.mark.parametrize("setup", [[], ["module load cuda"]])
@pytest.mark.parametrize("judges", [False, True])
def test_shellcheck_finds_nothing(tmp_path: Path, setup: list[str], judges: bool) -> None:
    worker = {"python": "/p", "setup": setup, "env": {"A": "b c"}}
    chosen = profile(worker=worker, scoring={"where": "slurm", "python": "/q"})
    script = tmp_path / "job.sbatch"
    script.write_text(render(score_profile(chosen) if judges else chosen))

    found = subprocess.run(
        [Path(sys.prefix) / "bin" / "shellcheck", script],
        capture_output=True,
        text=True,
        check=False,
    )

    assert found.stdout == ""


def test_a_template_that_is_missing_or_broken_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"names the template mine\.sbatch\.j2, which is not in"):
        render(profile(template="mine.sbatch.j2"), tmp_path)
    (tmp_path / "base.sbatch.j2").write_text("#!/bin/bash\n{{ nothing }}\n")
    with pytest.raises(UserError, match="'nothing' is undefined"):
        render(profile(), tmp_path)
    (tmp_path / "base.sbatch.j2").write_text("#!/bin/bash\n{% if %}\n")
    with pytest.raises(UserError, match=r"The template base\.sbatch\.j2, line 2"):
        render(profile(), tmp_path)


def script_tail(worker: str, tmp_path: Path, submission: Submission, rank: int) -> str:
    """Return a runnable script whose worker is a shell program."""
    shard = tmp_path / "ns" / "runs" / LAYOUT.run_key / "shards" / f"{rank:05d}"
    shard.mkdir(parents=True, exist_ok=True)
    program = tmp_path / "worker.sh"
    program.write_text(f"#!/bin/bash\n{worker}\n")
    program.chmod(0o755)
    text = render(profile(worker={"python": "/env/bin/python"}), submission=submission)
    return text.replace("/env/bin/python", str(program)).replace("/work/ns", str(tmp_path / "ns"))


def run_script(
    worker: str, tmp_path: Path, submission: Submission = WHOLE, index: int = 0
) -> subprocess.Popen[bytes]:
    environ = {"SLURM_ARRAY_TASK_ID": str(index), "SLURM_JOB_ID": "7", "PATH": "/usr/bin:/bin"}
    script = script_tail(worker, tmp_path, submission, submission.first_rank + index)
    return subprocess.Popen(["bash", "-c", script], env=environ, stdout=subprocess.PIPE)


def test_the_exit_code_is_recorded_on_disk_and_given_to_slurm(tmp_path: Path) -> None:
    process = run_script("exit 3", tmp_path)

    assert process.wait(20) == 3
    record = next(tmp_path.glob("ns/runs/*/shards/00000/exit-a2"))
    assert record.read_text() == '{"exit_code": 3, "job_id": "7"}\n'


def test_an_element_of_a_later_array_runs_the_shard_of_its_rank(tmp_path: Path) -> None:
    later = Submission(LAYOUT, 2, range(6, 8), 6, "a2-c3")

    process = run_script('echo "$@"', tmp_path, later, index=1)

    assert process.stdout is not None
    said = process.stdout.read().decode()
    assert process.wait(20) == 0
    assert "--rank 7 --world-size 8" in said
    assert next(tmp_path.glob("ns/runs/*/shards/*/exit-a2")).parent.name == "00007"


SHARED = Submission(LAYOUT, 2, range(3, 8), 3, "a2-c1", per_job=3)


def test_each_shard_of_a_job_has_its_own_seat_log_and_exit_record(tmp_path: Path) -> None:
    shards = tmp_path / "ns" / "runs" / LAYOUT.run_key / "shards"
    for rank in (4, 5):
        (shards / f"{rank:05d}").mkdir(parents=True)

    process = run_script('echo "$@"; [ "$7" != 4 ] || exit 3', tmp_path, SHARED)

    assert process.wait(20) == 3
    codes = {path.parent.name: json.loads(path.read_text()) for path in shards.glob("*/exit-a2")}
    assert {name: code["exit_code"] for name, code in codes.items()} == {
        "00003": 0,
        "00004": 3,
        "00005": 0,
    }
    for seat, rank in enumerate((3, 4, 5)):
        log = (shards / f"{rank:05d}" / "attempt-2.log").read_text()
        assert f"--rank {rank} --seat {seat} --seats 3 --world-size 8" in log
    assert f"What concerns the whole job is in {shards}/00003/attempt-2.log" in log


def test_the_last_job_of_an_array_has_the_shards_that_are_left(tmp_path: Path) -> None:
    shards = tmp_path / "ns" / "runs" / LAYOUT.run_key / "shards"
    (shards / "00007").mkdir(parents=True)
    (shards / "00006").mkdir()

    process = run_script("exit 0", tmp_path, SHARED, index=1)

    assert process.wait(20) == 0
    assert sorted(path.parent.name for path in shards.glob("*/exit-a2")) == ["00006", "00007"]


def test_slurms_warning_reaches_all_workers_of_a_job(tmp_path: Path) -> None:
    shards = tmp_path / "ns" / "runs" / LAYOUT.run_key / "shards"
    for rank in (4, 5):
        (shards / f"{rank:05d}").mkdir(parents=True)
    worker = f"trap 'exit 75' USR1; mkfifo {tmp_path}/$$; while :; do sleep 0.05; done"
    process = run_script(worker, tmp_path, SHARED)
    while len(list(tmp_path.glob("[0-9]*"))) < 3:
        assert process.poll() is None

    process.send_signal(10)

    assert process.wait(20) == 75
    codes = [json.loads(path.read_text())["exit_code"] for path in shards.glob("*/exit-a2")]
    assert codes == [75, 75, 75]


def test_slurms_warning_reaches_the_worker_while_it_runs(tmp_path: Path) -> None:
    worker = "trap 'exit 75' USR1; echo ready; while :; do sleep 0.05; done"
    process = run_script(worker, tmp_path)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"

    process.send_signal(10)

    assert process.wait(20) == 75
