"""Which earlier runs tell how long an evaluation takes."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa
from support.recorded import recorded_run

from nightshard.results.database import open_database
from nightshard.results.pace import known_pace
from nightshard.results.records import ShardRecord
from nightshard.results.write import record_run

pytestmark = pytest.mark.unit

GIB = 1 << 30


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[sa.Engine]:
    engine = open_database(f"sqlite:///{tmp_path}/results.db")
    yield engine
    engine.dispose()


def record(
    engine: sa.Engine,
    key: str,
    *,
    model: str = "org/a",
    family: str | None = None,
    size: int | None = None,
    seconds: float = 100.0,
    **changes: object,
) -> None:
    """Record a run of one shard that loaded for 10 s and gave 1,000 tokens."""
    run = recorded_run(key, model=model, day=1, value=0.5)
    shard = ShardRecord(
        rank=0,
        attempt=1,
        state="COMPLETED",
        output_tokens=1000,
        import_s=5.0,
        load_s=5.0,
        total_s=10.0 + seconds,
    )
    about = replace(run.model, family=family, weights_bytes=size)
    record_run(engine, replace(run, model=about, shards=(shard,), **changes))  # type: ignore[arg-type]


def per_token(engine: sa.Engine, **asked: object) -> float | None:
    known = {"cluster": "local", "name": "org/a", "family": None, "weights_bytes": None}
    pace = known_pace(engine, **{**known, **asked})  # type: ignore[arg-type]
    return None if pace is None else round(pace.per_token, 3)


def test_the_model_itself_goes_before_its_family_and_that_before_its_size(
    engine: sa.Engine,
) -> None:
    asked = {"name": "org/a", "family": "f", "weights_bytes": 10 * GIB}
    assert per_token(engine, **asked) is None
    record(engine, "by-size", model="org/c", size=11 * GIB, seconds=300.0)
    assert per_token(engine, **asked) == 0.3
    record(engine, "by-family", model="org/b", family="f", seconds=200.0)
    assert per_token(engine, **asked) == 0.2
    record(engine, "itself", seconds=100.0)
    assert per_token(engine, **asked) == 0.1


def test_a_model_of_another_size_or_cluster_tells_nothing(engine: sa.Engine) -> None:
    record(engine, "large", model="org/large", size=100 * GIB)
    record(engine, "elsewhere", cluster="other")
    assert per_token(engine, weights_bytes=10 * GIB) is None
    assert per_token(engine, cluster="other") == 0.1


@pytest.mark.parametrize("changes", [{"reused": 3}, {"status": "partial"}, {"num_shards": 2}])
def test_a_run_that_did_less_than_all_tells_nothing(
    engine: sa.Engine, changes: dict[str, object]
) -> None:
    record(engine, "some", **changes)
    assert per_token(engine) is None
