"""A profile of the local cluster, changed as a test wants it."""

from pathlib import Path
from typing import Any

import yaml

from nightshard.clusters.profile import ClusterProfile, load_profile
from nightshard.local.info import ClusterInfo


def profile(folder: Path, info: ClusterInfo, worker_env: Path, **changes: Any) -> ClusterProfile:
    """Return the profile of the local cluster with some sections changed."""
    (info.shared / "models").mkdir(exist_ok=True)
    values: dict[str, Any] = {
        "title": "Local",
        "ssh_conn_id": "local",
        "workdir": str(info.shared / "doctor"),
        "slurm": {"partition": "main", "gres": "gpu:1", "cpus_per_task": 1},
        "worker": {"python": str(worker_env / "bin" / "python")},
        "models": {"dir": str(info.shared / "models")},
        "defaults": {"max_job_hours": 1},
        "engine": {"name": "echo"},
    }
    for name, change in changes.items():
        both = isinstance(change, dict) and isinstance(values.get(name), dict)
        values[name] = {**values[name], **change} if both else change
    file = folder / "site.yaml"
    file.write_text(yaml.safe_dump(values))
    return load_profile(file, {})
