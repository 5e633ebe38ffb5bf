"""Several shards in one job: each gets its own part of the node."""

import os
from collections.abc import MutableMapping

from shard_worker.errors import ConfigError

DEVICES = ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES")
"""What Slurm's gres plugin sets to the job's GPUs (gres.conf(5)), and CUDA and ROCm obey."""

FIRST_PORT = 29_600
PORTS_A_SEAT = 200
"""vLLM looks for free ports upwards from ``VLLM_PORT``, several for a tensor-parallel engine."""


def take_seat(environ: MutableMapping[str, str], seat: int, seats: int) -> None:
    """Confine this process to its part of the job: GPUs, cores, ports.

    Caches are apart by rank anyway, see :func:`shard_worker.offline.node_local_caches`.

    Args:
        environ: the process's environment.
        seat: which part, from 0.
        seats: number of parts; with one the job is left as it is.

    Raises:
        ConfigError: there is no such seat, or the job's GPUs cannot be shared equally.
    """
    if not 0 <= seat < seats:
        raise ConfigError(f"--seat is {seat}; it must be from 0 to {seats - 1}.")
    if seats == 1:
        return
    for name in DEVICES:
        if name in environ:
            devices = [one.strip() for one in environ[name].split(",") if one.strip()]
            environ[name] = ",".join(part_of(devices, seat, seats, f"GPUs in {name}"))
    ports = FIRST_PORT + seat * PORTS_A_SEAT
    environ["VLLM_PORT"] = str(ports)
    environ["MASTER_PORT"] = str(ports + PORTS_A_SEAT - 1)
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) >= seats:
        each = len(cores) // seats
        os.sched_setaffinity(0, cores[seat * each : (seat + 1) * each])


def part_of(devices: list[str], seat: int, seats: int, what: str) -> list[str]:
    """Return a seat's share of some devices.

    Raises:
        ConfigError: they cannot be shared equally.
    """
    each, rest = divmod(len(devices), seats)
    if rest or not each:
        raise ConfigError(
            f"{seats} shards share this job, and it has {len(devices)} {what}; ask Slurm for a "
            "multiple of slurm.shards_per_job in the profile."
        )
    return devices[seat * each : (seat + 1) * each]
