"""Telling people of a run, through any of Airflow's notifiers."""

import importlib
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args
from urllib.parse import quote

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from nightshard.core.errors import UserError
from nightshard.orchestration.links import PAGES, shard_page
from nightshard.orchestration.steps import current_settings
from nightshard.publish.message import Event, Message, about_run, about_shard

if TYPE_CHECKING:
    from airflow.sdk import BaseNotifier

log = logging.getLogger(__name__)

NOTIFY = "notify"


class Wish(BaseModel):
    """Whom to tell of what.

    Attributes:
        notifier: path of a class of Airflow's or a provider's, such as
            ``airflow.providers.smtp.notifications.smtp.SmtpNotifier``.
        events: which ones; all by default.
        arguments: of that class; in every text ``{title}``, ``{text}`` and ``{event}`` are filled
            in.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    notifier: Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*\.[A-Za-z_]\w*$")]
    events: tuple[Event, ...] = get_args(Event)
    arguments: Mapping[str, Any] = Field(default_factory=dict)


def read_wishes(path: Path) -> list[Wish]:
    """Read ``include/notifications.yaml``, a list of wishes; none where it is not there.

    Raises:
        UserError: it says what it cannot say.
    """
    if not path.exists():
        return []
    try:
        found = yaml.safe_load(path.read_text("utf-8")) or []
        if not isinstance(found, list):
            raise UserError(f"{path} holds no list; begin each notifier with a dash.")
        return [Wish.model_validate(one) for one in found]
    except (OSError, yaml.YAMLError) as error:
        raise UserError(f"{path} cannot be read: {' '.join(str(error).split())}.") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "an entry"
        raise UserError(f"{path}: {where} cannot be used ({first['msg']}).") from None


def notify_of_run(context: Mapping[str, Any]) -> int:
    """Tell of a run that has ended, whatever its end; return the number of messages.

    Raises:
        UserError: the wishes cannot be used.
    """
    wishes = read_wishes(current_settings().notifications)
    if not wishes:
        return 0
    from nightshard.core.run_params import make_run_key
    from nightshard.orchestration.deployment import deployment_id
    from nightshard.results.database import open_database
    from nightshard.results.read import get_run

    dag_run, ti = context["dag_run"], context["ti"]
    model = str((context.get("params") or {}).get("model") or "")
    key = make_run_key(model, dag_run.run_id, dag_run.run_after, deployment_id())
    try:
        run = get_run(open_database(current_settings().database_url), key)
    except UserError:
        run = None
    states = ti.get_task_states(dag_run.dag_id, run_ids=[dag_run.run_id]).get(dag_run.run_id, {})
    failures = {
        task: "failed; its log has the reason"
        for task, state in sorted(states.items())
        if state == "failed" and not task.startswith(NOTIFY)
    }
    links = {"Run": _address(_run_page(dag_run))}
    if run is not None:
        links["Scores"] = _address(f"{PAGES}/runs/{key}")
        links["Leaderboard"] = _address(f"{PAGES}/")
    message = about_run(run, name=key, failures=failures, links=links)
    return tell(message, wishes, context)


def notify_of_shard(context: Mapping[str, Any], said: str) -> None:
    """Tell that a shard needs somebody, at once: its siblings may go on for hours.

    Never raises: the shard's own end is what counts.
    """
    try:
        wishes = read_wishes(current_settings().notifications)
        if not wishes:
            return
        dag_run, ti = context["dag_run"], context["ti"]
        log_page = shard_page(dag_run.dag_id, dag_run.run_id, ti.map_index, "log")
        message = about_shard(
            name=dag_run.run_id,
            number=ti.map_index + 1,
            said=said,
            links={"Log": _address(log_page), "Run": _address(_run_page(dag_run))},
        )
        tell(message, wishes, context)
    except Exception as error:  # noqa: BLE001 (the shard's own end is what counts in its log)
        log.warning("Nobody could be told: %s", error)


def tell(message: Message, wishes: list[Wish], context: Mapping[str, Any]) -> int:
    """Send a message to everybody who wants it; return how many do.

    Raises:
        UserError: a notifier is not installed or refuses its arguments.
        Exception: what the first notifier raised that failed, after all were tried.
    """
    wanted = [one for one in wishes if message.event in one.events]
    failures: list[Exception] = []
    for wish, notifier in [(wish, _notifier(wish, message)) for wish in wanted]:
        try:
            notifier.notify(dict(context))  # type: ignore[arg-type]
        except Exception as error:  # noqa: BLE001 (one deaf receiver must not silence the others)
            log.warning("%s failed: %s", wish.notifier, error)
            failures.append(error)
    if failures:
        raise failures[0]
    return len(wanted)


def _notifier(wish: Wish, message: Message) -> "BaseNotifier":
    module, _, name = wish.notifier.rpartition(".")
    try:
        kind = getattr(importlib.import_module(module), name)
        made: BaseNotifier = kind(**dict(_filled(wish.arguments, message)))
    except (ImportError, AttributeError):
        raise UserError(
            f"The notifier {wish.notifier} is not installed; install its provider, or remove it "
            "from the notifications."
        ) from None
    except TypeError as error:
        raise UserError(f"The notifier {wish.notifier} refuses its arguments: {error}.") from None
    return made


def _filled(arguments: Mapping[str, Any], message: Message) -> Iterator[tuple[str, Any]]:
    values = {"{title}": message.title, "{text}": message.text, "{event}": message.event}
    for name, value in arguments.items():
        filled = value
        if isinstance(value, str):
            for mark, said in values.items():
                filled = filled.replace(mark, said)
        yield name, filled


def _run_page(dag_run: Any) -> str:
    return f"/dags/{dag_run.dag_id}/runs/{quote(dag_run.run_id, safe='')}"


def _address(path: str) -> str:
    """Return the full address of a page of Airflow's, for people who are not on it."""
    from airflow.sdk.configuration import conf

    address: str = conf.get("api", "base_url", fallback="")
    return f"{address.rstrip('/')}{path}"
