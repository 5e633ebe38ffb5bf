"""docker-compose.yaml and its settings: what a person with Docker would start."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from nightshard.clusters.profile import load_profile
from nightshard.core.settings import PROJECT_ROOT
from nightshard.local.stack import CONNECTION_ID

pytestmark = pytest.mark.unit

COMPOSE = PROJECT_ROOT / "include" / "compose"
FILE = PROJECT_ROOT / "docker-compose.yaml"
WITH_CELERY = {"celery-worker", "redis"}
LONG_RUNNING = {"postgres", "api-server", "scheduler", "triggerer", "dag-processor", "slurm"}
SERVICE_KEYS = {
    *("build", "cap_drop", "command", "depends_on", "environment", "healthcheck", "hostname"),
    *("image", "init", "ports", "profiles", "restart", "security_opt", "stop_grace_period"),
    *("user", "volumes"),
}
VARIABLE = re.compile(r"\$\{(\w+)(?::([-?])([^}]*))?\}")
SECRET_NAME = re.compile(r"PASSWORD$|SECRET|_KEY$|_CONN(_ASYNC)?$|DB_URL$")


@pytest.fixture(scope="module")
def services() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = yaml.safe_load(FILE.read_text())["services"]
    return found


@pytest.fixture
def made_settings(tmp_path: Path) -> Path:
    path = tmp_path / "env"
    subprocess.run(["sh", COMPOSE / "make-env.sh", path], check=True, capture_output=True)
    return path


def parse_settings(path: Path) -> dict[str, str]:
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    return dict(line.partition("=")[::2] for line in lines)


def strings(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from (str(key), *strings(inner))
    elif isinstance(value, list):
        for inner in value:
            yield from strings(inner)
    else:
        yield str(value)


def test_every_part_of_nightshard_is_a_service(services: dict[str, dict[str, Any]]) -> None:
    assert services.keys() == LONG_RUNNING | WITH_CELERY | {"init"}
    for name, service in services.items():
        assert service.keys() <= SERVICE_KEYS, name


def test_what_runs_long_starts_again_after_a_fall_and_says_how_it_is(
    services: dict[str, dict[str, Any]],
) -> None:
    for name in LONG_RUNNING | WITH_CELERY:
        assert services[name]["restart"] == "unless-stopped", name
        health = services[name]["healthcheck"]
        assert health["test"][0] == "CMD", name
        assert {"interval", "timeout", "retries", "start_period"} < health.keys(), name
    assert services["init"]["restart"] == "no"


def test_the_order_of_starting_is_database_then_tables_then_airflow(
    services: dict[str, dict[str, Any]],
) -> None:
    assert services["init"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}
    for name in ("api-server", "scheduler", "triggerer", "dag-processor", "celery-worker"):
        assert services[name]["depends_on"] == {
            "init": {"condition": "service_completed_successfully"},
            "slurm": {"condition": "service_healthy"},
        }


def test_no_secret_stands_in_the_file_and_a_missing_one_stops_the_start(
    services: dict[str, dict[str, Any]],
) -> None:
    seen = 0
    for service in services.values():
        for key, value in service.get("environment", {}).items():
            if SECRET_NAME.search(key):
                seen += 1
                assert VARIABLE.search(value), key
                assert all(kind == "?" for _, kind, _ in VARIABLE.findall(value)), key
                assert not re.search(r":[^/$@{]+@", VARIABLE.sub("", value)), key
    assert seen > 10


def test_every_variable_of_the_file_is_explained_in_the_example(
    services: dict[str, dict[str, Any]],
) -> None:
    used = {m[0] for text in strings(services) for m in VARIABLE.findall(text)}
    example = (COMPOSE / "env.example").read_text()
    assert {name for name in used if name not in example} == set()


def test_images_are_pinned_and_nothing_runs_as_root(services: dict[str, dict[str, Any]]) -> None:
    for name, service in services.items():
        assert re.fullmatch(r"[a-z-]+:\d[\w.-]+", service["image"]), name
        assert service["cap_drop"] == ["ALL"], name
        assert "no-new-privileges:true" in service["security_opt"], name
    assert services["postgres"]["user"] == "postgres"
    dockerfile = (COMPOSE / "Dockerfile").read_text()
    for stage in dockerfile.split("\nFROM ")[2:]:
        last_user = re.findall(r"^USER (\w+)$", stage, re.MULTILINE)[-1]
        assert last_user == "nightshard"
    assert re.search(r"ARG PYTHON_IMAGE=python:\d+\.\d+\.\d+-", dockerfile)


def test_the_images_are_built_from_the_lock(services: dict[str, dict[str, Any]]) -> None:
    dockerfile = (COMPOSE / "Dockerfile").read_text()
    assert "uv pip sync --no-cache --python /opt/venv requirements.lock" in dockerfile
    stages = set(re.findall(r"^FROM \S+ AS (\w+)$", dockerfile, re.MULTILINE))
    built = [service["build"] for service in services.values() if "build" in service]
    assert {build["target"] for build in built} == {"airflow", "slurm"} < stages
    for build in built:
        assert PROJECT_ROOT / build["dockerfile"] == COMPOSE / "Dockerfile"
    copied = re.findall(r"^COPY (?!--)(.+) \S+$", dockerfile, re.MULTILINE)
    for source in " ".join(copied).split():
        assert (PROJECT_ROOT / source).exists(), source


def test_what_the_images_copy_is_not_ignored_and_the_rest_is() -> None:
    allowed = {
        line[1:]
        for line in (COMPOSE / "Dockerfile.dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    dockerfile = (COMPOSE / "Dockerfile").read_text()
    copied = re.findall(r"^COPY (.+) \S+$", dockerfile, re.MULTILINE)
    assert set(" ".join(copied).split()) == allowed


def test_airflow_reads_the_clusters_key_and_cannot_change_it(
    services: dict[str, dict[str, Any]],
) -> None:
    assert "cluster:/nightshard/local-cluster" in services["slurm"]["volumes"]
    for name in ("init", "api-server", "scheduler", "triggerer", "dag-processor"):
        assert "cluster:/nightshard/local-cluster:ro" in services[name]["volumes"], name


def test_celery_comes_only_with_its_profile(services: dict[str, dict[str, Any]]) -> None:
    profiles = {name: s["profiles"] for name, s in services.items() if "profiles" in s}
    assert profiles == {name: ["celery"] for name in WITH_CELERY}
    settings = parse_settings(COMPOSE / "env.example")
    assert settings["AIRFLOW_EXECUTOR"] == "LocalExecutor"
    assert settings["COMPOSE_PROFILES"] == ""
    script = (COMPOSE / "airflow-entrypoint.sh").read_text()
    for name, service in services.items():
        if service["image"].startswith("nightshard-airflow"):
            assert re.search(rf"^  (\S+ \| )*{service['command'][0]}( \| \S+)*\)$", script, re.M), (
                name
            )


def test_the_helm_values_fit_the_image() -> None:
    values = yaml.safe_load((PROJECT_ROOT / "include" / "helm" / "values.yaml").read_text())
    dockerfile = (COMPOSE / "Dockerfile").read_text()
    assert f"useradd --uid {values['uid']} --gid {values['gid']}" in dockerfile
    for name in ("dags", "plugins"):
        folder = values["config"]["core"][f"{name}_folder"]
        assert f"AIRFLOW__CORE__{name.upper()}_FOLDER={folder}" in dockerfile
    lock = (PROJECT_ROOT / "requirements.lock").read_text()
    assert f"apache-airflow=={values['airflowVersion']} " in lock
    assert values["executor"] == "KubernetesExecutor"
    # Tasks run in pods that keep nothing.
    variables = {one["name"]: one["value"] for one in values["env"]}
    assert variables["NIGHTSHARD_STORE"].startswith("s3://")
    assert {one["envName"] for one in values["secret"]} == {"NIGHTSHARD_DB_URL"}


def test_only_the_page_is_published_and_on_loopback(services: dict[str, dict[str, Any]]) -> None:
    published = {name: s["ports"] for name, s in services.items() if "ports" in s}
    assert published == {"api-server": ["127.0.0.1:${AIRFLOW_PORT:-8080}:8080"]}


def test_the_entry_script_defines_the_connection_that_the_profiles_name() -> None:
    script = (COMPOSE / "airflow-entrypoint.sh").read_text()
    assert f"export AIRFLOW_CONN_{CONNECTION_ID.upper()}\n" in script
    for folder in (COMPOSE / "echo", PROJECT_ROOT / "include" / "clusters"):
        profile = load_profile(folder / "local.yaml", {"NIGHTSHARD_STATE": "/nightshard"})
        assert profile.ssh_conn_id == CONNECTION_ID
        assert profile.workdir.startswith("/nightshard/local-cluster/shared/")


def test_made_settings_have_a_private_fresh_secret_everywhere(
    made_settings: Path, tmp_path: Path
) -> None:
    values = parse_settings(made_settings)
    secrets = [v for k, v in values.items() if re.search(r"(PASSWORD|SECRET|KEY)$", k)]
    assert len({*secrets}) == len(secrets) == 6
    assert all(len(secret) >= 44 for secret in secrets)
    assert values["POSTGRES_PASSWORD"].isalnum()
    assert made_settings.stat().st_mode & 0o077 == 0

    from cryptography.fernet import Fernet

    Fernet(values["AIRFLOW_FERNET_KEY"].encode())

    before = made_settings.read_text()
    again = ["sh", COMPOSE / "make-env.sh", made_settings]
    done = subprocess.run(again, check=True, capture_output=True, text=True)
    assert "exists and is kept" in done.stdout
    assert made_settings.read_text() == before


def compose_client() -> list[str] | None:
    for client in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(client[0]) is not None:
            done = subprocess.run([*client, "version"], capture_output=True, check=False)
            if done.returncode == 0:
                return client
    return None


def test_the_compose_client_accepts_the_file_with_made_settings_and_refuses_it_without(
    made_settings: Path,
) -> None:
    client = compose_client()
    if client is None:
        pytest.skip("no compose client here; the other tests check the file")

    def config(settings: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*client, "-f", FILE, "--env-file", settings, "config", "-q"],
            env={"PATH": os.environ["PATH"], "HOME": str(settings.parent)},
            capture_output=True,
            text=True,
            check=False,
        )

    accepted = config(made_settings)
    assert accepted.returncode == 0, accepted.stderr
    refused = config(COMPOSE / "env.example")
    assert refused.returncode != 0
    assert "make-env.sh" in refused.stderr
