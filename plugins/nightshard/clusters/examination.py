"""Does a cluster do all that a run needs? One check after the other, each with its remedy.

The checks ask the login node only; the last one of ``nightshard doctor``, a job that answers a
question, is :mod:`nightshard.cli.trial`.
"""

import re
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from nightshard.clusters.detect import check_filled_in
from nightshard.clusters.errors import TransportError
from nightshard.clusters.layout import RunLayout
from nightshard.clusters.profile import ClusterProfile
from nightshard.clusters.rehearsal import REHEARSAL, rehearsal_script, rehearse
from nightshard.clusters.remote_python import last_line, run_worker_python
from nightshard.clusters.staging import ensure_worker, preflight
from nightshard.clusters.survey import Survey, take_survey
from nightshard.clusters.transport import Transport
from nightshard.core.errors import NightshardError, UserError

ROOM = 1 << 30
"""Bytes that a work folder should have for a first run."""

CLOCK_S = 60
"""Seconds by which the clocks may differ: the control plane compares times of both."""


@dataclass
class Patient:
    """What is examined.

    Attributes:
        profile: the cluster.
        transport: connection to its login node.
        worker_source: source tree of the shard worker.
        templates: folder of the sbatch templates.
        survey: what Slurm told, from the check ``Slurm`` on.
        worker: the staged worker, from the check ``packages`` on.
        ill: names of the checks that failed or were not made.
    """

    profile: ClusterProfile
    transport: Transport
    worker_source: Path
    templates: Path
    survey: Survey | None = None
    worker: str | None = None
    ill: set[str] = field(default_factory=set)

    @property
    def surveyed(self) -> Survey:
        """What Slurm told."""
        assert self.survey is not None  # noqa: S101 (a check that needs it names "Slurm")
        return self.survey

    async def shell(self, script: str, *arguments: str) -> str:
        """Run a script of plain sh on the login node; return what it printed.

        Raises:
            UserError: it failed; the message is its last line.
        """
        command = ["sh", "-c", script, "doctor", *arguments]
        done = await self.transport.run(command, idempotent=True)
        if not done.ok:
            said = last_line(done.stderr) or last_line(done.stdout)
            raise UserError(said or f"exit status {done.exit_status}")
        return done.stdout.strip()


Check = Callable[[Patient], Awaitable[str]]


async def examine(
    patient: Patient, checks: Sequence[tuple[str, tuple[str, ...], Check]]
) -> AsyncIterator[tuple[str, bool | None, str]]:
    """Yield for each check its name, whether it is well (None: not looked at), and a sentence.

    A check that rests on one that failed is not looked at: its complaint would mislead.
    """
    for name, needs, check in checks:
        if broken := [one for one in needs if one in patient.ill]:
            patient.ill.add(name)
            yield name, None, f"not looked at, since {broken[0]} has to work first"
            continue
        try:
            yield name, True, await check(patient)
        except NightshardError as error:
            patient.ill.add(name)
            yield name, False, str(error)


async def _profile(patient: Patient) -> str:
    check_filled_in(patient.profile)
    return f"{patient.profile.title}, nothing in it is an example"


async def _login(patient: Patient) -> str:
    try:
        return f"on {await patient.shell('hostname')}"
    except TransportError as error:
        raise UserError(f"{error} Check the connection and try again.") from None


async def _shell(patient: Patient) -> str:
    token = secrets.token_hex(8)
    done = await patient.transport.run(["printf", token], idempotent=True)
    if done.stdout != token:
        extra = last_line(done.stdout.replace(token, "")) or "something"
        raise UserError(
            f"The login shell prints {extra!r} before each command; let its start files print "
            "only where the shell is interactive."
        )
    return "a command's output comes alone"


async def _clock(patient: Patient) -> str:
    there = await patient.shell("date +%s")
    skew = abs(int(there) - time.time()) if there.isdigit() else 0.0
    if skew > CLOCK_S:
        raise UserError(
            f"The clock there differs from this machine's by {skew:.0f} s; set the one that is "
            "wrong by NTP."
        )
    return f"{skew:.0f} s apart"


async def _slurm(patient: Patient) -> str:
    for program in ("sbatch", "squeue", "scancel", "sinfo"):
        try:
            await patient.shell('command -v "$1"', program)
        except UserError:
            raise UserError(
                f"{program} is not on the PATH; let the connection lead to a login node, or load "
                "Slurm in the shell's start files."
            ) from None
    try:
        await patient.shell("squeue --me --noheader >/dev/null")
    except UserError as error:
        raise UserError(f"squeue fails: {error}; ask the site, or try again later.") from None
    patient.survey = await take_survey(patient.transport)
    return f"Slurm {patient.survey.version}"


async def _accounting(patient: Patient) -> str:
    said, there = patient.profile.slurm.accounting, patient.surveyed.accounting
    if said == "yes" and not there:
        raise UserError("sacct does not answer; set slurm.accounting to auto or no.")
    return "sacct answers" if there else "no sacct; ended jobs are judged by their files"


async def _partition(patient: Patient) -> str:
    name = patient.profile.slurm.partition
    if name is None:
        return "the site's default"
    listed = await patient.shell('sinfo -h -p "$1" -o "%R|%a"', name)
    states = dict(line.split("|") for line in listed.splitlines() if "|" in line)
    if name not in states:
        known = ", ".join(one.name for one in patient.surveyed.partitions)
        raise UserError(
            f"There is no partition {name}; set slurm.partition"
            + (f" to one with GPUs: {known}." if known else ".")
        )
    if states[name] != "up":
        raise UserError(f"The partition {name} is {states[name]}; choose another, or wait.")
    return name


async def _time(patient: Patient) -> str:
    profile = patient.profile
    mine = [one for one in patient.surveyed.partitions if one.name == profile.slurm.partition]
    most = mine[0].hours if mine else None
    wanted = max(profile.defaults.max_job_hours, profile.limits.max_job_hours or 0)
    if most is not None and wanted > most:
        raise UserError(
            f"The profile allows jobs of {wanted:g} h and the partition {most:g} h; lower "
            "defaults.max_job_hours and limits.max_job_hours."
        )
    return f"up to {wanted:g} h" + (f" of {most:g} h" if most else "")


async def _gpus(patient: Patient) -> str:
    profile = patient.profile
    wanted = profile.gpus()
    mine = [one for one in patient.surveyed.partitions if one.name == profile.slurm.partition]
    if profile.slurm.partition is None or (not mine and profile.slurm.gres is None):
        return f"{wanted} a job"
    has = mine[0].gpus if mine else 0
    kind = re.search(r"gpu:([A-Za-z][\w.-]*)", profile.slurm.gres or "")
    if wanted > has or (kind and mine and kind[1] != mine[0].gpu):
        offered = f"gpu:{mine[0].gpu + ':' if mine[0].gpu else ''}{has}" if mine else "no GPU"
        raise UserError(
            f"A job asks for {profile.slurm.gres} and a node of {profile.slurm.partition} has "
            f"{offered}; correct slurm.gres."
        )
    return f"{wanted} of {has} a node" if has else f"{wanted} a job"


async def _arrays(patient: Patient) -> str:
    own, theirs = patient.profile.slurm.max_array_size, patient.surveyed.max_array_size
    if own > theirs:
        raise UserError(
            f"slurm.max_array_size is {own} and Slurm's MaxArraySize {theirs}; set it to {theirs}."
        )
    return f"up to {own} elements"


async def _acceptance(patient: Patient) -> str:
    minutes = round(patient.profile.defaults.max_job_hours * 60)
    script = rehearsal_script(patient.profile, max(1, minutes), patient.templates)
    try:
        said = await rehearse(patient.transport, patient.profile, script)
    except UserError as error:
        raise UserError(
            f"{error} Correct the options under slurm in the profile, above all account, qos, "
            "mem and constraint."
        ) from None
    return last_line(said).removeprefix("sbatch: ")


async def _workdir(patient: Patient) -> str:
    await preflight(patient.transport, patient.profile, _layout(patient), 0, 0)
    return patient.profile.workdir


async def _room(patient: Patient) -> str:
    await preflight(patient.transport, patient.profile, _layout(patient), ROOM, 100)
    return "at least 1 GiB free"


def _layout(patient: Patient) -> RunLayout:
    return RunLayout(PurePosixPath(patient.profile.workdir), REHEARSAL)


async def _links(patient: Patient) -> str:
    if patient.profile.defaults.balance == "static":
        return "not needed, as shards keep to their own questions"
    script = 'cd "$1" && probe=$(mktemp .nightshard-XXXXXX) && ln "$probe" "$probe.link"'
    clean = 'rm -f "$1"/.nightshard-??????*'
    try:
        await patient.shell(script, patient.profile.workdir)
    except UserError as error:
        raise UserError(
            f"The work folder takes no hard links ({error}); set defaults.balance to static."
        ) from None
    finally:
        await patient.shell(clean, patient.profile.workdir)
    return "the work folder takes them"


async def _transfer(patient: Patient) -> str:
    path = PurePosixPath(patient.profile.workdir) / f".nightshard-{secrets.token_hex(6)}"
    data = secrets.token_bytes(65536)
    try:
        await patient.transport.put_bytes(path, data)
        there = await patient.transport.get_bytes(path)
    except NightshardError as error:
        raise UserError(
            f"Files cannot be copied: {str(error).rstrip('.')}; ask the site to allow SFTP on its "
            "login node."
        ) from None
    finally:
        await patient.shell('rm -f -- "$1"', str(path))
    if there != data:
        raise UserError("A file came back changed; ask the site about its SFTP server.")
    return "a file came back as it was sent"


async def _python(patient: Patient) -> str:
    asked = ["-c", "import platform; print(platform.python_version())"]
    done = await run_worker_python(patient.transport, patient.profile, asked)
    return f"{last_line(done.stdout)} at {patient.profile.worker.python}"


async def _packages(patient: Patient) -> str:
    patient.worker = await ensure_worker(patient.transport, patient.profile, patient.worker_source)
    engine = patient.profile.engine.name
    asked = f"from shard_worker.versions import versions; print(versions({engine!r})[{engine!r}])"
    if engine in {"echo", "openai"}:
        asked = f"import shard_worker.run; print('needs no package for {engine}')"
    done = await run_worker_python(
        patient.transport, patient.profile, ["-c", asked], worker_zip=patient.worker, accept=(0, 1)
    )
    if not done.ok:
        raise UserError(f"{last_line(done.stderr).rstrip('.')}; install the worker's requirements.")
    return f"{engine} {last_line(done.stdout)}"


async def _models(patient: Patient) -> str:
    folder = patient.profile.models.dir
    try:
        await patient.shell('cd -- "$1" && ls >/dev/null', folder)
    except UserError:
        if patient.profile.models.download == "none":
            raise UserError(
                f"The models' folder {folder} is not there or cannot be read; make it, or correct "
                "models.dir."
            ) from None
        await patient.shell('mkdir -p -- "$1"', folder)
    return folder


async def _downloads(patient: Patient) -> str:
    if patient.profile.models.download == "none":
        return "not asked for; models are copied there by hand"
    program = (
        "import os, urllib.request\n"
        "address = os.environ.get('HF_ENDPOINT', 'https://huggingface.co')\n"
        "asked = urllib.request.Request(address, method='HEAD')\n"
        "try:\n    urllib.request.urlopen(asked, timeout=8)\n"
        "except urllib.error.HTTPError:\n    pass\n"
    )
    done = await run_worker_python(
        patient.transport, patient.profile, ["-"], stdin=program, accept=(0, 1), offline=False
    )
    if not done.ok:
        raise UserError(
            f"The login node does not reach the Hub ({last_line(done.stderr)}); set "
            "models.download to none and copy models there, or set a proxy in worker.setup."
        )
    return "the login node reaches the Hub"


LOGIN_CHECKS: tuple[tuple[str, tuple[str, ...], Check], ...] = (
    ("profile", (), _profile),
    ("login", (), _login),
    ("shell", ("login",), _shell),
    ("clock", ("login",), _clock),
    ("Slurm", ("login", "shell"), _slurm),
    ("accounting", ("Slurm",), _accounting),
    ("partition", ("Slurm",), _partition),
    ("time limit", ("partition",), _time),
    ("GPUs", ("partition",), _gpus),
    ("arrays", ("Slurm",), _arrays),
    ("acceptance", ("profile", "partition", "GPUs", "time limit", "arrays"), _acceptance),
    ("work folder", ("Slurm",), _workdir),
    ("room", ("work folder",), _room),
    ("hard links", ("work folder",), _links),
    ("file transfer", ("work folder",), _transfer),
    ("python", ("login", "shell"), _python),
    ("packages", ("python", "file transfer"), _packages),
    ("models", ("login", "shell"), _models),
    ("downloads", ("python",), _downloads),
)
"""Name, names of the checks that it rests on, and the check."""
