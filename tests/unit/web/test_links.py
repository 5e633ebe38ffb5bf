"""The buttons' paths, as Airflow stores them when the task defers."""

from types import SimpleNamespace
from typing import Any

import pytest

from nightshard.orchestration.links import ASKED_BY, SHARD_LINKS, views
from nightshard.orchestration.shard import ShardSensor

pytestmark = pytest.mark.unit

SHARD: Any = SimpleNamespace(
    dag_id="evaluate", run_id="manual__2026-11-24T01:30:00+00:00", map_index=2
)


def paths() -> dict[str, str]:
    return {link.name: link.get_link(SHARD, ti_key=SHARD) for link in SHARD_LINKS}


def test_a_shard_has_a_button_for_its_log_and_one_for_its_job() -> None:
    shard = "/nightshard/dags/evaluate/runs/manual__2026-11-24T01%3A30%3A00%2B00%3A00/shards/2"
    assert paths() == {"Remote log": f"{shard}/log", "Slurm job": f"{shard}/job"}
    assert tuple(ShardSensor.operator_extra_links) == SHARD_LINKS


def test_the_buttons_work_where_airflow_is_served_below_a_path(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://example.org/airflow/")
    assert all(path.startswith("/airflow/nightshard/dags/") for path in paths().values())
    assert all(view["href"].startswith("/airflow/nightshard/") for view in views())


@pytest.mark.parametrize(
    ("asked_by", "path"),
    [
        (None, ""),
        ("", ""),
        (
            "nightly/backfill__2026-02-04T01:00:00+00:00",
            "/dags/nightly/runs/backfill__2026-02-04T01:00:00+00:00",
        ),
        ("nightly/../../x?y", "/dags/nightly/runs/..%2F..%2Fx%3Fy"),
    ],
)
def test_an_evaluation_leads_to_the_run_that_asked_for_it(asked_by: str | None, path: str) -> None:
    ti = SimpleNamespace(get_template_context=lambda: {"params": {"asked_by": asked_by}})
    (link,) = ASKED_BY
    assert link.get_link(SHARD, ti_key=ti) == path
