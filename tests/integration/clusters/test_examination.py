"""`nightshard doctor --cluster` on a real cluster: all is well, or the one thing that is not."""

import contextlib
import functools
import venv
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from support.profiles import profile
from support.sshd import Sshd, clusters_own, running_sshd, transport_to

from nightshard.cli.trial import one_question
from nightshard.clusters.examination import LOGIN_CHECKS, Patient, examine
from nightshard.clusters.profile import ClusterProfile
from nightshard.clusters.ssh import SshTransport
from nightshard.core.settings import PROJECT_ROOT
from nightshard.local.info import ClusterInfo

pytestmark = pytest.mark.integration

TEMPLATES = PROJECT_ROOT / "include" / "sbatch"
WORKER = PROJECT_ROOT / "shard_worker" / "src"
CHECKS = (
    *LOGIN_CHECKS,
    (
        "job",
        ("packages", "acceptance", "work folder"),
        functools.partial(one_question, model=None, wait_s=60),
    ),
)


async def examined(
    chosen: ClusterProfile, transport: SshTransport, templates: Path = TEMPLATES
) -> dict[str, tuple[bool | None, str]]:
    async with transport:
        patient = Patient(chosen, transport, WORKER, templates)
        return {name: (well, said) async for name, well, said in examine(patient, CHECKS)}


async def test_a_cluster_on_which_all_is_well_passes_twenty_checks(
    local_cluster: ClusterInfo, worker_env: Path, tmp_path: Path
) -> None:
    chosen = profile(tmp_path, local_cluster, worker_env)
    found = await examined(chosen, transport_to(clusters_own(local_cluster)))
    assert len(found) == 20
    assert {name: said for name, (well, said) in found.items() if not well} == {}
    assert "answered in" in found["job"][1]
    # Nothing is left behind.
    assert not list((local_cluster.shared / "doctor").glob("runs/doctor-*"))
    assert not list((local_cluster.shared / "doctor").glob(".nightshard-*"))


@dataclass(frozen=True)
class Trouble:
    """Something that is wrong.

    Attributes:
        check: that has to find it.
        remedy: part of its sentence.
        profile: sections of the profile that cause it.
        programs: scripts that hide the login node's programs, by name.
        sshd: settings of the login node's sshd.
        template: of the batch script.
        bare_python: whether the worker's Python has no packages.
    """

    check: str
    remedy: str
    profile: dict[str, Any] = field(default_factory=dict)
    programs: dict[str, str] = field(default_factory=dict)
    sshd: tuple[str, ...] = ()
    template: str = ""
    bare_python: bool = False


TROUBLES = [
    Trouble("profile", "fill it in", {"slurm": {"account": "example_account"}}),
    Trouble("login", "", sshd=("AllowUsers nobody-else",)),
    Trouble(
        "shell",
        "only where the shell is interactive",
        sshd=('ForceCommand echo Welcome; eval "$SSH_ORIGINAL_COMMAND"',),
    ),
    Trouble("clock", "set the one that is wrong by NTP", programs={"date": "echo 1000000000"}),
    Trouble(
        "Slurm",
        "let the connection lead to a login node",
        programs={"sh": 'PATH=/usr/bin:/bin exec /bin/sh "$@"'},
    ),
    Trouble("accounting", "set slurm.accounting to auto", {"slurm": {"accounting": "yes"}}),
    Trouble("partition", "one with GPUs: main, hi", {"slurm": {"partition": "nowhere"}}),
    Trouble("time limit", "lower defaults.max_job_hours", {"defaults": {"max_job_hours": 48}}),
    Trouble("GPUs", "has gpu:2; correct slurm.gres", {"slurm": {"gres": "gpu:8"}}),
    Trouble("arrays", "set it to 1001", {"slurm": {"max_array_size": 5000}}),
    Trouble("acceptance", "mem and constraint", {"slurm": {"mem": "900G"}}),
    Trouble("work folder", "cannot be written", {"workdir": "/proc/nightshard"}),
    Trouble(
        "room",
        "free some space",
        programs={"df": "printf 'F 1 2 3 4 5\\n/dev/x 1000 990 10 99%% /x\\n'"},
    ),
    Trouble("hard links", "set defaults.balance to static", programs={"ln": "exit 1"}),
    Trouble("file transfer", "allow SFTP", sshd=("Subsystem sftp /bin/false",)),
    Trouble("python", "correct worker.python", {"worker": {"python": "/opt/gone/bin/python"}}),
    Trouble("packages", "install the worker's requirements", bare_python=True),
    Trouble("models", "correct models.dir", {"models": {"dir": "/opt/gone"}}),
    Trouble(
        "downloads",
        "set models.download to none",
        {
            "models": {"download": "login"},
            "worker": {"setup": ["export HF_ENDPOINT=http://127.0.0.1:9"]},
        },
    ),
    Trouble(
        "job",
        "the disk of this node is broken; correct what it names",
        template='{% extends "base.sbatch.j2" %}{% block before_shards %}\n'
        "echo the disk of this node is broken >&2\nexit 1\n{% endblock %}",
    ),
]


@pytest.mark.parametrize("trouble", TROUBLES, ids=lambda trouble: trouble.check)
async def test_what_is_wrong_is_found_with_its_remedy(
    trouble: Trouble, local_cluster: ClusterInfo, worker_env: Path, tmp_path: Path
) -> None:
    changes = dict(trouble.profile)
    templates = TEMPLATES
    if trouble.template:
        templates = tmp_path / "templates"
        templates.mkdir()
        (templates / "base.sbatch.j2").write_text((TEMPLATES / "base.sbatch.j2").read_text())
        (templates / "broken.sbatch.j2").write_text(trouble.template)
        changes["template"] = "broken.sbatch.j2"
    if trouble.bare_python:
        venv.create(tmp_path / "bare", with_pip=False)
        changes["worker"] = {"python": str(tmp_path / "bare" / "bin" / "python")}
    chosen = profile(tmp_path, local_cluster, worker_env, **changes)
    with login_node(local_cluster, tmp_path, trouble) as sshd:
        found = await examined(chosen, transport_to(sshd), templates)
    wrong = {name: said for name, (well, said) in found.items() if well is False}
    assert list(wrong) == [trouble.check], wrong
    assert trouble.remedy in wrong[trouble.check]
    assert "\n" not in wrong[trouble.check]
    # What rests on it is not looked at, so that one cause gives one complaint.
    needing = [name for name, needs, _ in CHECKS if trouble.check in needs]
    assert all(found[name][0] is None for name in needing)


def test_each_check_has_a_trouble_that_it_finds() -> None:
    assert [one.check for one in TROUBLES] == [name for name, *_ in CHECKS]


@contextlib.contextmanager
def login_node(info: ClusterInfo, folder: Path, trouble: Trouble) -> Iterator[Sshd]:
    """A login node of the cluster on which something is wrong."""
    settings = list(trouble.sshd)
    if trouble.programs:
        programs = folder / "programs"
        programs.mkdir()
        for name, script in trouble.programs.items():
            (programs / name).write_text(f"#!/bin/sh\n{script}\n")
            (programs / name).chmod(0o755)
        config = (info.root / "etc" / "sshd_config").read_text()
        (variables,) = (line for line in config.splitlines() if line.startswith("SetEnv "))
        settings.append(variables.replace("PATH=", f"PATH={programs}:", 1))
    if not settings:
        yield clusters_own(info)
        return
    with running_sshd(info, folder / "sshd", *settings) as sshd:
        yield sshd
