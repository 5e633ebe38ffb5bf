"""The local cluster and the local Airflow together, under one state folder."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from nightshard.core.settings import Settings
from nightshard.local.airflow import AirflowInfo, LocalAirflow
from nightshard.local.cluster import LocalCluster
from nightshard.local.info import ClusterInfo

CONNECTION_ID = "nightshard_local"
"""The Airflow connection that ``include/clusters/local.yaml`` names."""


def cluster_root(settings: Settings) -> Path:
    """Return the local cluster's folder."""
    return settings.state / "local-cluster"


def task_environment(settings: Settings, cluster: ClusterInfo) -> dict[str, str]:
    """Return the variables that the local Airflow's tasks need: the SSH connection and settings."""
    return {
        f"AIRFLOW_CONN_{CONNECTION_ID.upper()}": json.dumps(cluster.airflow_connection()),
        "NIGHTSHARD_HOME": str(settings.home),
        "NIGHTSHARD_STATE": str(settings.state),
        "NIGHTSHARD_STORE": settings.store,
        "NIGHTSHARD_DB_URL": settings.database_url,
        "NIGHTSHARD_CLUSTERS": str(settings.clusters),
    }


@dataclass(frozen=True, slots=True)
class LocalStack:
    """Everything that a run on one machine needs beside a model and the worker's environment.

    Attributes:
        settings: whose ``state`` folder holds cluster, Airflow, store and database.
        accounting: whether the cluster has slurmdbd.
        extra_environment: more variables for Airflow's tasks, for example further connections.
    """

    settings: Settings
    accounting: bool = False
    extra_environment: Mapping[str, str] = field(default_factory=dict)

    def up(self, say: Callable[[str], None]) -> tuple[ClusterInfo, AirflowInfo]:
        """Start both, or find them running."""
        cluster = LocalCluster(cluster_root(self.settings), accounting=self.accounting).up()
        return cluster, self.airflow(cluster).up(say)

    def airflow(self, cluster: ClusterInfo | None = None) -> LocalAirflow:
        """Return the handle of this state folder's Airflow; only its ``up`` needs the cluster."""
        environment = dict(self.extra_environment)
        if cluster is not None:
            environment |= task_environment(self.settings, cluster)
        return LocalAirflow(self.settings.state / "airflow", self.settings.home, environment)

    def down(self) -> None:
        """Stop both; answers and scores stay."""
        self.airflow().down()
        LocalCluster(cluster_root(self.settings)).down()
