"""What follows the scores: the tasks ``gate`` and ``publish``.

Most runs have nothing to do here, so what takes long to import is imported where it is needed.
"""

import logging
import tempfile
from pathlib import Path

from nightshard.core.errors import UserError
from nightshard.core.run_params import RunParams
from nightshard.orchestration.connections import hub_account
from nightshard.orchestration.steps import Json, current_settings
from nightshard.publish.exporters import exporters
from nightshard.results.database import open_database
from nightshard.results.read import get_run
from nightshard.results.records import RunRecord

log = logging.getLogger(__name__)


def check_wishes(params: RunParams) -> None:
    """Make sure, before anything is submitted, that what is asked for afterwards can be done.

    Raises:
        UserError: there is no such gate, or the Hub is not set up.
    """
    if params.gate is not None:
        from nightshard.results import gate as gates

        gates.named_policy(current_settings().gates, params.gate)
    if params.publish == "hub" and hub_account() is None:
        raise UserError(
            "publish is hub, but Airflow has no connection 'nightshard_hub'; add one of the type "
            "HTTP with the namespace as login and the token as password, or choose folder."
        )


def gate(run_key: str) -> Json | None:
    """Compare a run with the baseline of its gate, and write down what was found.

    Returns:
        The ruling without its comparisons; None where the run has no gate.

    Raises:
        UserError: the policy is gone, or the two runs cannot be compared.
    """
    settings = current_settings()
    engine = open_database(settings.database_url)
    name = (get_run(engine, run_key).params or {}).get("gate")
    if not name:
        return None
    from nightshard.results import gate as gates
    from nightshard.results.write import record_ruling

    policy = gates.named_policy(settings.gates, name)
    ruling = gates.gate(engine, settings.store, run_key, policy)
    record_ruling(engine, run_key, ruling)
    for sentence in ruling.reasons:
        log.info("%s", sentence)
    return ruling.said()


def publish(run_key: str) -> str | None:
    """Publish a run as its parameters say; its metrics go to the trackers that are set up.

    Returns:
        Where it is, None where it is not to be published.

    Raises:
        UserError: the run has no scores, or the Hub refuses it.
    """
    settings = current_settings()
    run = get_run(open_database(settings.database_url), run_key)
    for exporter in exporters():
        log.info("%s", exporter.export(run))
    wish = (run.params or {}).get("publish")
    account = hub_account() if wish in (None, "hub") else None
    if account is None and wish != "folder":
        return None
    from nightshard.publish.folder import write_folder
    from nightshard.publish.hub import upload
    from nightshard.results.store import RunStore

    store = RunStore(settings.store, run_key)
    if account is not None:
        with tempfile.TemporaryDirectory(prefix="nightshard-publish-") as made:
            folder = Path(made) / "run"
            _tell_gated(run, write_folder(store, run, folder))
            return upload(folder, account, run_key)
    _tell_gated(run, write_folder(store, run, settings.published / run_key))
    return str(settings.published / run_key)


def _tell_gated(run: RunRecord, gated: list[str]) -> None:
    if gated:
        log.info("Run %s goes without the questions of %s", run.run_key, ", ".join(gated))
