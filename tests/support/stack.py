"""One Airflow and one local cluster for all end-to-end tests, in a temporary state folder."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml
from support.hub import FakeHub, fake_hub
from support.served import served_model
from support.web_hook import WebHook, web_hook

from nightshard.cli.api import AirflowApi
from nightshard.core.settings import PROJECT_ROOT, Settings
from nightshard.local.airflow import AirflowInfo, LocalAirflow
from nightshard.local.airflow_settings import DATABASE_SETTING
from nightshard.local.info import ClusterInfo
from nightshard.local.stack import LocalStack

T = TypeVar("T")

POLL_S = 0.3
RUN_TIMEOUT_S = 300

SLOW = {"answer": "It is \\boxed{9}.", "seconds_per_request": 1.5, "concurrency": 1}
"""Options of an echo engine that takes its time, one answer after the other."""


@dataclass(frozen=True, slots=True)
class Stack:
    """What a test needs to act as a user.

    Attributes:
        settings: those of the Airflow under test.
        cluster: the local cluster.
        airflow: address and login.
        model: folder of a tiny random model.
        hub: a stand-in for the Hub.
        hook: a web hook that is told of runs which need somebody.
        database: Airflow's own, None for a SQLite file.
    """

    settings: Settings
    cluster: ClusterInfo
    airflow: AirflowInfo
    model: Path
    hub: FakeHub
    hook: WebHook
    database: str | None = None

    @property
    def environment(self) -> dict[str, str]:
        """Variables of a shell in which this stack is the one that ``nightshard`` finds."""
        return {
            **os.environ,
            "NIGHTSHARD_STATE": str(self.settings.state),
            "NIGHTSHARD_CLUSTERS": str(self.settings.clusters),
            "COLUMNS": "200",
            **own_benchmarks(self.settings),
        }

    def local_airflow(self) -> LocalAirflow:
        """Return the handle with which a person stops, repairs and starts this Airflow."""
        more = {
            **own_benchmarks(self.settings),
            **afterwards(self.settings, self.hub, self.hook),
            **broken_connections(self.cluster),
            **airflows_database(self.database),
        }
        stack = LocalStack(self.settings, extra_environment=more)
        return stack.airflow(self.cluster)

    def api(self) -> AirflowApi:
        """Log in to Airflow's REST API."""
        return AirflowApi(self.airflow.url, self.airflow.username, self.airflow.password)

    def cli(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run ``nightshard`` as a user would."""
        return subprocess.run(
            [Path(sys.executable).parent / "nightshard", *arguments],
            env=self.environment,
            check=False,
            capture_output=True,
            text=True,
        )

    def command(self, *command: str) -> str:
        """Run one of Slurm's commands and return what it prints."""
        return subprocess.run(
            command,
            env={**os.environ, **self.cluster.environment()},
            check=True,
            capture_output=True,
            text=True,
        ).stdout

    def squeue(self) -> list[str]:
        """Return every job that the cluster knows, ended ones included, one line each."""
        wanted = ("--array", "--noheader", "-t", "all", "--format=%i %j %T")
        return self.command("squeue", *wanted).splitlines()

    def run(self, conf: Mapping[str, Any]) -> "FinishedRun":
        """Trigger ``evaluate`` over REST and wait until it ends."""
        return self.wait(self.trigger(conf))

    def trigger(self, conf: Mapping[str, Any]) -> str:
        """Trigger ``evaluate`` over REST and return the run's id."""
        usual = {"cluster": "local", "model": str(self.model), "publish": "no"}
        return self.api().trigger({**usual, **conf})

    def wait(self, run_id: str) -> "FinishedRun":
        """Wait until a run ends."""
        api = self.api()

        def ended() -> str | None:
            state = api.run_state(run_id)
            return state if state in {"success", "failed"} else None

        return FinishedRun(api, run_id, eventually(ended, f"the end of {run_id}"))


def eventually(look: Callable[[], T | None], what: str, timeout_s: float = RUN_TIMEOUT_S) -> T:
    """Ask until there is an answer that is not None or empty."""
    deadline = time.monotonic() + timeout_s
    while not (answer := look()):
        assert time.monotonic() < deadline, f"waited {timeout_s:g} s for {what}"
        time.sleep(POLL_S)
    return answer


@dataclass(frozen=True, slots=True)
class FinishedRun:
    """A DAG run that has ended."""

    api: AirflowApi
    run_id: str
    state: str

    @property
    def tasks(self) -> list[dict[str, Any]]:
        """Its task instances."""
        return self.api.task_instances(self.run_id)

    def summary(self) -> dict[str, Any]:
        """Return what ``record`` returned."""
        value: dict[str, Any] = self.api.result(self.run_id, "record")
        return value

    def log(self, task: Mapping[str, Any]) -> str:
        """Return a task's log as text."""
        return "\n".join(json.dumps(event) for event in self.api.log_events(self.run_id, task))


@contextmanager
def running_stack(state: Path, worker_env: Path, database: str | None = None) -> Iterator[Stack]:
    """Start a cluster and an Airflow with extra cluster profiles for the tests."""
    clusters = state / "clusters"
    clusters.mkdir(parents=True)
    (state / "worker-env").symlink_to(worker_env)
    settings = Settings.from_env(
        {"NIGHTSHARD_STATE": str(state), "NIGHTSHARD_CLUSTERS": str(clusters)}
    )
    model = tiny_model(state / "tiny-model", worker_env)
    environment = own_benchmarks(settings)
    write_benchmarks(Path(environment["NIGHTSHARD_BENCHMARKS"]))
    stack = LocalStack(settings, extra_environment=environment)
    with (
        served_model("It is \\boxed{9}.") as served,
        fake_hub() as hub,
        web_hook() as hook,
        stopping(stack),
    ):
        environment |= afterwards(settings, hub, hook)
        write_profiles(clusters, served)
        from nightshard.local.cluster import LocalCluster
        from nightshard.local.stack import cluster_root

        cluster = LocalCluster(cluster_root(settings)).up()
        environment |= {**broken_connections(cluster), **airflows_database(database)}
        airflow = stack.airflow(cluster).up(print)
        api = AirflowApi(airflow.url, airflow.username, airflow.password)
        deadline = time.monotonic() + 90
        while not api.dag_exists():
            assert time.monotonic() < deadline, api.import_errors()
            time.sleep(POLL_S)
        yield Stack(settings, cluster, airflow, model, hub, hook, database)


def airflows_database(url: str | None) -> dict[str, str]:
    """Return the variables that give Airflow a database of its own beside a SQLite file."""
    if url is None:
        return {}
    return {DATABASE_SETTING: url, f"{DATABASE_SETTING}_ASYNC": url}


@contextmanager
def stopping(stack: LocalStack) -> Iterator[None]:
    """Stop everything in the end, whatever happens."""
    try:
        yield
    finally:
        stack.down()


THREE_KINDS_ANSWER = (
    "```python\nprint(sum(map(int, open(0).read().split())))\n```\nSo it is \\boxed{B}.\n"
    "The answer is 3."
)
"""A program that adds, the letter B, and the number 3."""

HARNESS_TASK = """
task: nightshard_sums
dataset_path: json
dataset_kwargs: {{data_files: {{test: {folder}/sums.jsonl}}}}
output_type: generate_until
test_split: test
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
metric_list: [{{metric: exact_match, aggregation: mean, higher_is_better: true}}]
generation_kwargs: {{until: [], do_sample: false, max_gen_toks: 64}}
filter_list:
  - name: strict
    filter:
      - {{function: regex, regex_pattern: "The answer is (-?[0-9]+)."}}
      - {{function: take_first}}
metadata: {{version: 1.0}}
"""
"""A user's own task of lm-evaluation-harness, with local data."""


def own_benchmarks(settings: Settings) -> dict[str, str]:
    """Return the variable that names the folder of :func:`write_benchmarks`."""
    return {"NIGHTSHARD_BENCHMARKS": str(settings.state / "benchmarks")}


NOTIFICATIONS = """
- notifier: airflow.providers.slack.notifications.slack_webhook.SlackWebhookNotifier
  events: [worse, attention]
  arguments: {text: "{event}: {title}\\n{text}"}
"""


def afterwards(settings: Settings, hub: FakeHub, hook: WebHook) -> dict[str, str]:
    """Return the variables with which an Airflow publishes to the stand-in and tells the hook."""
    file = settings.state / "notifications.yaml"
    file.write_text(NOTIFICATIONS)
    host, _, port = hub.address.removeprefix("http://").partition(":")
    account = {"conn_type": "http", "schema": "http", "host": host, "port": int(port)}
    account |= {"login": "org", "password": hub.token}
    return {
        "AIRFLOW_CONN_NIGHTSHARD_HUB": json.dumps(account),
        "AIRFLOW_CONN_SLACK_DEFAULT": hook.connection,
        "HF_HUB_DISABLE_XET": "1",  # whose protocol the stand-in does not speak
        "NIGHTSHARD_NOTIFICATIONS": str(file),
        "NIGHTSHARD_NIGHTLY": str(write_nightly(settings.state)),
    }


NIGHTLY = """
schedule: "0 1 * * *"
evaluate: {{cluster: echo, tasks: [Starter], limit: 2, num_shards: 1, publish: "no"}}
caps: {{echo: {cap}}}
sources:
  made: {{kind: folder, glob: "{state}/checkpoints/*/checkpoint-*", stable_minutes: 0}}
  listed: {{kind: table, file: "{state}/checkpoints.csv", priority: 5}}
"""
NIGHTLY_CAP = 3
LISTED = "model,appeared_at\n"


def write_nightly(state: Path) -> Path:
    """Write where checkpoints appear: in folders on the cluster, and in a list that is empty."""
    (state / "checkpoints.csv").write_text(LISTED)
    file = state / "nightly.yaml"
    file.write_text(NIGHTLY.format(state=state, cap=NIGHTLY_CAP))
    return file


def write_benchmarks(folder: Path) -> None:
    """Write a group's own benchmarks."""
    folder.mkdir()
    rows = [{"question": f"{n} + 1?", "answer": str(n + 1)} for n in range(4)]
    (folder / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "nightshard_sums.yaml").write_text(HARNESS_TASK.format(folder=folder))


def tiny_model(folder: Path, worker_env: Path) -> Path:
    """Make a random model of about 100,000 parameters with a chat template."""
    script = PROJECT_ROOT / "shard_worker" / "tests" / "tiny_model.py"
    subprocess.run([worker_env / "bin" / "python", script, folder], check=True)
    return folder


def write_profiles(clusters: Path, served: str) -> None:
    """Write the local profile as it is, and variations of it under other names."""
    source = PROJECT_ROOT / "include" / "clusters" / "local.yaml"
    shutil.copy(source, clusters)
    local = yaml.safe_load(source.read_text())
    echo = {**local["engine"], "name": "echo", "options": {"answer": "It is \\boxed{9}."}}
    variations: dict[str, dict[str, Any]] = {
        "echo": {"engine": echo},
        "three-kinds": {"engine": {**echo, "options": {"answer": THREE_KINDS_ANSWER}}},
        "judges-there": {
            "engine": {**echo, "options": {"answer": THREE_KINDS_ANSWER}},
            "scoring": {
                "where": "slurm",
                "python": sys.executable,
                "slurm": {"partition": "main", "cpus_per_task": 1},
            },
        },
        "served": {"engine": {**echo, "name": "openai", "options": {"base_url": served}}},
        "wrong": {"engine": {**echo, "options": {"answer": "It is \\boxed{8}."}}},
        "hopeless": {"engine": {**echo, "options": {"crash_on": " "}}},
        "slow": {"engine": {**echo, "options": SLOW}},
        "endless": {"engine": {**echo, "options": {**SLOW, "seconds_per_request": 600}}},
        "unreachable": {"ssh_conn_id": "nightshard_unreachable"},
        "wrong-key": {"ssh_conn_id": "nightshard_wrong_key"},
        "no-connection": {"ssh_conn_id": "nightshard_nowhere"},
        "too-short": {"engine": {**local["engine"], "max_model_len": 4}},
    }
    for name, change in variations.items():
        (clusters / f"{name}.yaml").write_text(yaml.safe_dump({**local, "name": name, **change}))


def broken_connections(cluster: ClusterInfo) -> dict[str, str]:
    """Return Airflow connections that cannot work: a closed port and another host's key."""
    good = cluster.airflow_connection()
    other_key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJK1J0yzXXwPTgXnLEPLkXFUFBj1NQXwHkLBOjOZJFRV"
    # Nothing listens below 1024 here; a free port of now may be somebody's port soon.
    unreachable = {**good, "port": 1}
    wrong_key = {**good, "extra": {**good["extra"], "host_key": other_key}}
    return {
        "AIRFLOW_CONN_NIGHTSHARD_UNREACHABLE": json.dumps(unreachable),
        "AIRFLOW_CONN_NIGHTSHARD_WRONG_KEY": json.dumps(wrong_key),
    }
