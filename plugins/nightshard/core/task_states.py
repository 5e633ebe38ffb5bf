"""Words of Airflow that rooms without Airflow have to know too."""

SHARD_TASK = "shard"
"""Id of the mapped task that follows a shard; its map index is the rank."""

RUN_ENDED = frozenset({"success", "failed"})
"""States of a DAG run that does nothing more."""

TASK_ENDED = frozenset({"success", "failed", "skipped", "upstream_failed", "removed"})
"""States of a task that does nothing more; in any other it may still want its job."""
