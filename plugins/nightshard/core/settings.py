"""Where Nightshard keeps its things, read from environment variables."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

PROJECT_ROOT = Path(__file__).resolve().parents[3]


@dataclass(frozen=True, slots=True)
class Settings:
    """The control plane's own settings.

    Attributes:
        home: the project's folder, which holds ``include/`` and ``shard_worker/``.
        state: folder for everything that running Nightshard on this machine creates.
        store: artefacts between tasks and the merged answers, a folder or any fsspec URL.
        database_url: SQLAlchemy URL of the results database.
        clusters: folder of the cluster profiles.
        templates: folder of the sbatch templates.
        worker_source: source tree of the shard worker that is staged to clusters.
        benchmarks: folder of a group's own benchmarks, which need not exist.
        gates: folder of the policies of gates, which need not exist.
        published: folder in which runs are published where there is no Hub.
        notifications: file that says whom to tell of a run, which need not exist.
        nightly: file that says where checkpoints appear, which need not exist.
        cluster: the profile of a run that names none; empty leaves the choice to Nightshard.
    """

    home: Path
    state: Path
    store: str
    database_url: str
    clusters: Path
    templates: Path
    worker_source: Path
    benchmarks: Path
    gates: Path
    published: Path
    notifications: Path
    nightly: Path
    cluster: str

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> "Settings":
        """Read ``NIGHTSHARD_HOME``, ``_STATE``, ``_STORE``, ``_DB_URL``, ``_CLUSTERS``.

        And ``_CLUSTER``, and ``_BENCHMARKS``, ``_GATES``, ``_NOTIFICATIONS``, ``_NIGHTLY``, by
        default in ``include/`` of the project, and ``_PUBLISHED``, by default in the state folder.
        """
        home = Path(environ.get("NIGHTSHARD_HOME", PROJECT_ROOT)).resolve()
        state = Path(environ.get("NIGHTSHARD_STATE", home / ".nightshard")).resolve()
        store = environ.get("NIGHTSHARD_STORE", str(state / "store"))
        clusters = Path(environ.get("NIGHTSHARD_CLUSTERS", home / "include" / "clusters"))
        include = home / "include"
        gates = Path(environ.get("NIGHTSHARD_GATES", include / "gates"))
        told = Path(environ.get("NIGHTSHARD_NOTIFICATIONS", include / "notifications.yaml"))
        nightly = Path(environ.get("NIGHTSHARD_NIGHTLY", include / "nightly.yaml"))
        published = Path(environ.get("NIGHTSHARD_PUBLISHED", state / "published"))
        benchmarks = Path(environ.get("NIGHTSHARD_BENCHMARKS", home / "include" / "benchmarks"))
        return cls(
            home=home,
            state=state,
            # Airflow and the command line may be in different folders.
            store=store if "://" in store else str(Path(store).resolve()),
            database_url=environ.get("NIGHTSHARD_DB_URL", f"sqlite:///{state / 'nightshard.db'}"),
            clusters=clusters.resolve(),
            templates=home / "include" / "sbatch",
            worker_source=home / "shard_worker" / "src",
            benchmarks=benchmarks.resolve(),
            gates=gates.resolve(),
            published=published.resolve(),
            notifications=told.resolve(),
            nightly=nightly.resolve(),
            cluster=environ.get("NIGHTSHARD_CLUSTER", ""),
        )

    def variables(self, environ: Mapping[str, str]) -> dict[str, str]:
        """Return what a cluster profile's ``${NAME}`` may refer to: all variables and our own."""
        return {
            **environ,
            "NIGHTSHARD_HOME": str(self.home),
            "NIGHTSHARD_STATE": str(self.state),
        }
