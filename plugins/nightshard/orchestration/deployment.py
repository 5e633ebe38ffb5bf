"""Which installation this is, so that two that share an account leave each other's jobs alone."""

import uuid

VARIABLE = "nightshard_deployment"


def deployment_id() -> str:
    """Return this installation's id, made at the first call and kept as an Airflow variable.

    It belongs to Airflow's database because that alone can say whether a run is gone: an id in the
    artefact store would make two Airflows with a common store take each other's runs for lost.

    Call it inside a task.
    """
    from airflow.sdk import Variable

    found: str | None = Variable.get(VARIABLE, default=None)
    if found is None:
        found = uuid.uuid4().hex
        Variable.set(VARIABLE, found, description="Marks the runs of this Nightshard on clusters")
    return found
