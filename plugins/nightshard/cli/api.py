"""The few calls of Airflow's REST API that the command line makes."""

import copy
import os
import secrets
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Self
from urllib.parse import quote

import httpx

from nightshard.core.errors import UserError
from nightshard.core.task_states import SHARD_TASK

DAG_ID = "evaluate"
MAP_INDEX_UNMAPPED = -1
PAGES = "/nightshard"
"""Where Airflow's API server serves Nightshard's own pages."""

RUNS_PER_PAGE = 100
TRIGGER_PAUSES_S = (1.0, 2.0, 5.0)


class NoSuchError(UserError):
    """Airflow, or Nightshard's pages in it, say that something is not there."""


class SilentAirflowError(UserError):
    """Airflow does not answer: it is not there, or not for the moment."""


class AirflowApi:
    """A logged-in client of one Airflow.

    Args:
        url: address of the API server, without a path.
        username: login.
        password: its password; kept in memory only.
        transport: for tests, an httpx transport in place of the network.

    Raises:
        UserError: the server cannot be reached or refuses the login.
    """

    def __init__(
        self,
        url: str,
        username: str,
        password: str,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.url = url.rstrip("/")
        self.dag_id = DAG_ID
        try:
            self._client = httpx.Client(base_url=self.url, timeout=30, transport=transport)
        except httpx.InvalidURL as error:
            raise UserError(
                f"{self.url!r} is no address of an Airflow ({error}); correct "
                "NIGHTSHARD_AIRFLOW_URL, for example http://127.0.0.1:8080."
            ) from None
        answer = self._send(
            "POST", "/auth/token", json={"username": username, "password": password}
        )
        if answer.status_code in {401, 403}:
            raise UserError(
                f"Airflow at {self.url} refuses the login of {username!r}; check "
                "NIGHTSHARD_AIRFLOW_USERNAME and NIGHTSHARD_AIRFLOW_PASSWORD."
            )
        self._check(answer)
        self._client.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"

    def of_dag(self, dag_id: str) -> Self:
        """Return a client whose calls are about another DAG."""
        other = copy.copy(self)
        other.dag_id = dag_id
        return other

    def dag_exists(self) -> bool:
        """Say whether Airflow has parsed the DAG."""
        answer = self._send("GET", f"/api/v2/dags/{self.dag_id}")
        if answer.status_code == httpx.codes.NOT_FOUND:
            return False
        self._check(answer)
        return True

    def import_errors(self) -> list[str]:
        """Return why DAG files could not be parsed, if any could not."""
        return [
            error["stack_trace"] for error in self._json("/api/v2/importErrors")["import_errors"]
        ]

    def trigger(self, conf: Mapping[str, Any]) -> str:
        """Start a run with these params and return its run id.

        The id is made here, so that asking again after a lost reply cannot start a second run.

        Raises:
            UserError: Airflow refuses the params.
        """
        run_id = f"manual__{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"
        body = {"dag_run_id": run_id, "logical_date": None, "conf": conf}
        for pause in (*TRIGGER_PAUSES_S, None):
            try:
                answer = self._send("POST", f"/api/v2/dags/{self.dag_id}/dagRuns", json=body)
            except SilentAirflowError:
                if pause is None:
                    raise
                time.sleep(pause)
                continue
            if answer.status_code == httpx.codes.CONFLICT:
                break
            if answer.status_code in {400, 422}:
                # A parameter's complaint goes on with the schema that it failed.
                detail = str(answer.json()["detail"]).partition("\n")[0]
                raise UserError(f"Airflow refuses these parameters: {detail}")
            self._check(answer)
            break
        return run_id

    def runs(self) -> Iterator[dict[str, Any]]:
        """Yield the runs of the DAG, the latest first."""
        seen = 0
        while True:
            page = self._json(
                f"/api/v2/dags/{self.dag_id}/dagRuns",
                order_by="-run_after",
                limit=RUNS_PER_PAGE,
                offset=seen,
            )
            yield from page["dag_runs"]
            seen += len(page["dag_runs"])
            if not page["dag_runs"] or seen >= page["total_entries"]:
                return

    def deployment(self) -> str | None:
        """Return the id of this installation; None before its first run, or without the pages.

        It comes from the pages, since who may read runs may not always read Airflow's variables.
        """
        try:
            found = self._pages("GET", f"{PAGES}/dags/{self.dag_id}/deployment")["deployment"]
        except NoSuchError:
            return None
        return None if found is None else str(found)

    def run(self, run_id: str) -> dict[str, Any] | None:
        """Return a run by its Airflow id, None where there is none."""
        answer = self._send("GET", self._run(run_id))
        if answer.status_code == httpx.codes.NOT_FOUND:
            return None
        self._check(answer)
        found: dict[str, Any] = answer.json()
        return found

    def fail_run(self, run_id: str) -> None:
        """Mark a run failed, as a person does in Airflow; the triggers cancel its shards' jobs."""
        self._check(self._send("PATCH", self._run(run_id), json={"state": "failed"}))

    def fail_shard(self, run_id: str, rank: int) -> None:
        """Mark one shard failed."""
        path = f"{self._run(run_id)}/taskInstances/{SHARD_TASK}/{rank}"
        self._check(self._send("PATCH", path, json={"new_state": "failed"}))

    def shards(self, run_id: str) -> dict[str, Any]:
        """Return what Airflow and the cluster know of a run's shards.

        Raises:
            NoSuchError: Airflow does not have Nightshard's pages.
            UserError: the pages cannot tell; the sentence is theirs.
        """
        return self._pages("GET", f"{self._pages_of(run_id)}/shards")

    def log(self, run_id: str, rank: int, **asked: Any) -> dict[str, Any]:
        """Return a piece of a shard's log on the cluster, and the shard's state.

        Args:
            run_id: Airflow's id.
            rank: from 0.
            **asked: ``attempt``, and ``offset`` in bytes (-1: the end).

        Raises:
            NoSuchError: there is no such shard or attempt, or no pages.
            UserError: the cluster does not answer.
        """
        chosen = {name: value for name, value in asked.items() if value is not None}
        return self._pages("GET", f"{self._pages_of(run_id)}/shards/{rank}/log.json", **chosen)

    def cancel_left(self, run_id: str, rank: int | None = None) -> list[str]:
        """Cancel the Slurm jobs that an ended run or an ended shard has left; return their ids."""
        chosen = {} if rank is None else {"rank": rank}
        answer = self._pages("POST", f"{self._pages_of(run_id)}/cancel", **chosen)
        return [str(job) for job in answer["cancelled"]]

    def newest_run(self) -> str:
        """Return the id of the latest run.

        Raises:
            UserError: there is none.
        """
        found = self._json(f"/api/v2/dags/{self.dag_id}/dagRuns", order_by="-run_after", limit=1)
        if not found["dag_runs"]:
            raise UserError("The DAG 'evaluate' has not run yet; `nightshard launch` runs it.")
        return str(found["dag_runs"][0]["dag_run_id"])

    def run_state(self, run_id: str) -> str:
        """Return ``queued``, ``running``, ``success`` or ``failed``."""
        return str(self._json(self._run(run_id))["state"])

    def task_instances(self, run_id: str) -> list[dict[str, Any]]:
        """Return all task instances of a run, mapped ones included."""
        found: list[dict[str, Any]] = []
        while True:
            page = self._json(f"{self._run(run_id)}/taskInstances", limit=100, offset=len(found))
            found += page["task_instances"]
            if not page["task_instances"] or len(found) >= page["total_entries"]:
                return found

    def log_events(self, run_id: str, task: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Yield the structured log events of a task instance's latest try."""
        yield from self.new_log_events(run_id, task, None)[0]

    def new_log_events(
        self, run_id: str, task: Mapping[str, Any], token: str | None
    ) -> tuple[list[dict[str, Any]], str | None]:
        """Return the log events of a task instance's latest try since an earlier call.

        Args:
            run_id: Airflow's id.
            task: the task instance.
            token: what the earlier call returned beside its events; None reads from the start.
        """
        answer = self._send(
            "GET",
            f"{self._run(run_id)}/taskInstances/{task['task_id']}/logs/{task['try_number'] or 1}",
            params={"map_index": task["map_index"], **({"token": token} if token else {})},
            headers={"Accept": "application/json"},
        )
        if answer.status_code != httpx.codes.OK:
            return [], token
        found = answer.json()
        events = [one if isinstance(one, dict) else {"event": one} for one in found["content"]]
        return events, found.get("continuation_token")

    def preview(self, run_id: str) -> Any:
        """Return what a dry run found out, None where the run was none."""
        return self.result(run_id, "prepare_dataset", "preview")

    def result(self, run_id: str, task_id: str, key: str = "return_value") -> Any:
        """Return what a task returned or left under a key, None where there is nothing."""
        answer = self._send(
            "GET",
            f"{self._run(run_id)}/taskInstances/{task_id}/xcomEntries/{key}",
            params={"deserialize": True},
        )
        return answer.json()["value"] if answer.status_code == httpx.codes.OK else None

    def page(self, run_id: str) -> str:
        """Return the address of a run's page."""
        return f"{self.url}/dags/{self.dag_id}/runs/{quote(run_id, safe=':+')}"

    def _run(self, run_id: str) -> str:
        return f"/api/v2/dags/{self.dag_id}/dagRuns/{quote(run_id, safe='')}"

    def _pages_of(self, run_id: str) -> str:
        return f"{PAGES}/dags/{self.dag_id}/runs/{quote(run_id, safe='')}"

    def _pages(self, method: str, path: str, **params: Any) -> dict[str, Any]:
        headers = {"Accept": "application/json"}
        answer = self._send(method, path, params=params, headers=headers)
        try:
            value: dict[str, Any] = answer.json()
        except ValueError:
            value = {}
        told = value.get("detail")
        if answer.status_code == httpx.codes.NOT_FOUND and told in {None, "Not Found"}:
            raise NoSuchError(
                f"Airflow at {self.url} does not serve Nightshard's pages; check that its plugins "
                "folder is this project's plugins/ and restart its API server."
            )
        if not answer.is_success and isinstance(told, str):
            missing = answer.status_code == httpx.codes.NOT_FOUND
            raise (NoSuchError if missing else UserError)(told)
        self._check(answer)
        return value

    def _json(self, path: str, **params: Any) -> dict[str, Any]:
        answer = self._send("GET", path, params=params)
        self._check(answer)
        value: dict[str, Any] = answer.json()
        return value

    def _check(self, answer: httpx.Response) -> None:
        if not answer.is_success:
            raise UserError(
                f"Airflow at {self.url} answers {answer.status_code} {answer.reason_phrase} to "
                f"{answer.request.method} {answer.request.url.path}; check its address, the rights "
                "of the login and its log."
            )

    def _send(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        try:
            return self._client.request(method, path, **arguments)
        except httpx.TransportError:
            raise SilentAirflowError(
                f"Airflow at {self.url} does not answer; start it (`make quickstart`) or set "
                "NIGHTSHARD_AIRFLOW_URL."
            ) from None


def api_from_environment(local: Mapping[str, str] | None) -> AirflowApi:
    """Log in where ``NIGHTSHARD_AIRFLOW_URL`` says, else at this machine's own Airflow.

    Args:
        local: url, username and password of the Airflow that ``make quickstart`` started, or None.

    Raises:
        UserError: neither is there.
    """
    url = os.environ.get("NIGHTSHARD_AIRFLOW_URL")
    if url:
        return AirflowApi(
            url,
            os.environ.get("NIGHTSHARD_AIRFLOW_USERNAME", "admin"),
            os.environ.get("NIGHTSHARD_AIRFLOW_PASSWORD", ""),
        )
    if local is None:
        raise UserError(
            "No Airflow runs here; start one with `make quickstart`, or set "
            "NIGHTSHARD_AIRFLOW_URL, _USERNAME and _PASSWORD."
        )
    return AirflowApi(local["url"], local["username"], local["password"])
