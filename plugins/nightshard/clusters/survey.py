"""What a login node tells of its cluster, and the profile that follows from it.

Everything is read by plain Slurm commands (sinfo(1), scontrol(1), sacctmgr(1)); what they do not
tell, such as the folder on the shared file system, is asked of a person.
"""

import math
import re
import secrets
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nightshard.clusters.errors import TransportError
from nightshard.clusters.sections import section_function, split_sections
from nightshard.clusters.transport import Transport

_PROGRAM = r"""
s host; hostname -f 2>/dev/null || hostname
s folders
for name in WORK SCRATCH PROJECT HOME; do
  eval "value=\${$name:-}"; [ -n "$value" ] && printf '%s=%s\n' "$name" "$value"
done
s nodes; sinfo -h -N -o '%P|%a|%l|%N|%c|%m|%G|%h' 2>&1
s config; scontrol show config 2>/dev/null
s accounts; sacctmgr -nP show assoc user="$(id -un)" format=account,maxsubmit 2>/dev/null
s sacct; sacct -n -X -S now >/dev/null 2>&1 && echo yes || echo no
s internet
for ask in 'curl -sIm 8 -o /dev/null' 'wget -q --spider -T 8 -t 1'; do
  $ask "${HF_ENDPOINT:-https://huggingface.co}" 2>/dev/null && { echo yes; break; }
done
s end
"""


@dataclass(frozen=True, slots=True)
class Partition:
    """A partition with GPUs.

    Attributes:
        name: of it.
        hours: its time limit, None for none.
        nodes: how many it has.
        cpus: of a node; ``memory_mb`` and ``gpus`` likewise.
        memory_mb: MiB.
        gpus: GPUs.
        gpu: Slurm's name for their kind, empty where it has none.
        shared: whether jobs may share a node.
    """

    name: str
    hours: float | None
    nodes: int
    cpus: int
    memory_mb: int
    gpus: int
    gpu: str
    shared: bool


@dataclass(frozen=True, slots=True)
class Survey:
    """What was found out.

    Attributes:
        host: the login node's full name.
        folders: variables that name folders, by name.
        partitions: those with GPUs: Slurm's default first, then those with the most nodes.
        accounts: that the user may charge.
        max_array_size: Slurm's ``MaxArraySize``.
        max_submitted: the user's ``MaxSubmit``, None where there is none.
        accounting: whether ``sacct`` answers.
        internet: whether the login node reaches the Hub.
        version: of Slurm.
    """

    host: str
    folders: Mapping[str, str]
    partitions: Sequence[Partition]
    accounts: Sequence[str]
    max_array_size: int
    max_submitted: int | None
    accounting: bool
    internet: bool
    version: str


async def take_survey(transport: Transport) -> Survey:
    """Ask a login node.

    Raises:
        TransportError: the connection failed, or the answer is cut short.
    """
    nonce = secrets.token_hex(8)
    script = f"{section_function(nonce)}\n{_PROGRAM}"
    answer = await transport.run(["sh", "-s"], stdin=script, idempotent=True)
    return read_survey(answer.stdout, nonce)


def read_survey(text: str, nonce: str) -> Survey:
    """Read what the login node printed.

    Raises:
        TransportError: it is cut short.
    """
    found = {title: body.strip() for title, body in split_sections(text, nonce)}
    if "end" not in found:
        raise TransportError("The login node's answer is cut short; try again.")
    config = dict(re.findall(r"^(\w+)\s*=\s*(.*?)\s*$", found["config"], re.MULTILINE))
    rows = [line.split("|") for line in found["accounts"].splitlines() if line.count("|") == 1]
    limits = [int(limit) for _, limit in rows if limit.isdigit()]
    return Survey(
        host=found["host"],
        folders=dict(line.split("=", 1) for line in found["folders"].splitlines()),
        partitions=_partitions(found["nodes"]),
        accounts=tuple(dict.fromkeys(account for account, _ in rows if account)),
        max_array_size=int(config.get("MaxArraySize", "1001")),
        max_submitted=min(limits, default=None),
        accounting=found["sacct"] == "yes",
        internet=found["internet"] == "yes",
        version=config.get("SLURM_VERSION", ""),
    )


def _partitions(text: str) -> list[Partition]:
    # %P marks the default partition with an asterisk. Slurm lists the partitions in no fixed order.
    by_name: dict[str, list[list[str]]] = {}
    for line in text.splitlines():
        fields = line.split("|")
        if len(fields) == 8 and fields[1] == "up" and _gres(fields[6])[1]:  # noqa: PLR2004
            by_name.setdefault(fields[0], []).append(fields)
    found = {name: _partition(name.rstrip("*"), nodes) for name, nodes in by_name.items()}
    order = sorted(found, key=lambda name: (not name.endswith("*"), -found[name].nodes, name))
    return [found[name] for name in order]


def _partition(name: str, nodes: Sequence[Sequence[str]]) -> Partition:
    # Of several kinds of nodes the most frequent one.
    usual = Counter(tuple(one[4:7]) for one in nodes).most_common(1)[0][0]
    cpus, memory, gres = usual
    gpu, gpus = _gres(gres)
    return Partition(
        name=name,
        hours=hours_of(nodes[0][2]),
        nodes=len({one[3] for one in nodes}),
        cpus=int(cpus.rstrip("+")),
        memory_mb=int(memory.rstrip("+")),
        gpus=gpus,
        gpu=gpu,
        shared=nodes[0][7] != "EXCLUSIVE",
    )


def _gres(text: str) -> tuple[str, int]:
    found = re.findall(r"(?:^|,)gpu:(?:([A-Za-z][\w.-]*):)?(\d+)", text)
    return (found[0][0], sum(int(count) for _, count in found)) if found else ("", 0)


def hours_of(limit: str) -> float | None:
    """Turn Slurm's time limit (``1-00:00:00``, ``30:00``, ``infinite``) into hours.

    >>> hours_of("1-12:00:00")
    36.0
    """
    found = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", limit)
    if found is None:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return days * 24 + hours + minutes / 60 + seconds / 3600


@dataclass(frozen=True, slots=True)
class Answers:
    """What a person has to say.

    Attributes:
        name: of the profile.
        title: for people.
        connection: Airflow's connection.
        workdir: folder on the shared file system.
        partition: name of a partition of the survey.
        account: None for the site's default.
        python: of the worker's environment.
        models: folder of the models.
    """

    name: str
    title: str
    connection: str
    workdir: str
    partition: str
    account: str | None
    python: str
    models: str


def propose(survey: Survey, answers: Answers) -> dict[str, Any]:
    """Return the profile as a mapping, in the order in which it is written.

    A shard gets one GPU and its part of a node's CPUs and memory. Where nodes are not shared, as
    many shards as a node has GPUs share a job.
    """
    chosen = next((one for one in survey.partitions if one.name == answers.partition), None)
    slurm: dict[str, Any] = {"partition": answers.partition}
    if answers.account:
        slurm["account"] = answers.account
    if chosen is not None:
        slurm |= _share(chosen)
    slurm["max_array_size"] = survey.max_array_size
    if survey.max_submitted is not None:
        slurm["max_submitted"] = survey.max_submitted
    slurm["accounting"] = "yes" if survey.accounting else "no"
    hours = chosen.hours if chosen and chosen.hours else 24.0
    pattern = re.sub(r"\d+", r"\\d+", re.escape(survey.host))
    site: dict[str, Any] = {"hosts": [pattern]}
    if chosen is not None:
        site |= {"gpus_per_node": chosen.gpus, "shared_nodes": chosen.shared}
        site |= {"gpu": chosen.gpu} if chosen.gpu else {}
    return {
        "title": answers.title,
        "ssh_conn_id": answers.connection,
        "workdir": answers.workdir,
        "slurm": slurm,
        "worker": {"python": answers.python},
        "models": {"dir": answers.models, "download": "login" if survey.internet else "none"},
        "defaults": {"num_shards": 8, "max_job_hours": min(4.0, math.floor(hours) or hours)},
        "limits": {"max_shards": 128, "max_job_hours": hours},
        "site": site,
    }


def _share(partition: Partition) -> dict[str, Any]:
    shards = 1 if partition.shared else partition.gpus
    part = partition.gpus if partition.shared else 1
    kind = f"{partition.gpu}:" if partition.gpu else ""
    share: dict[str, Any] = {
        "gres": f"gpu:{kind}{shards}",
        "cpus_per_task": max(1, partition.cpus // part),
        # A node's memory is not all for jobs, so a tenth is left.
        "mem": f"{max(1, int(partition.memory_mb * 0.9) // part)}M",
    }
    return share | ({"shards_per_job": shards} if shards > 1 else {})
