"""A small run as it is written into the results database."""

import datetime

from nightshard.results.records import AttemptRecord, MetricRecord, ModelRecord, RunRecord


def recorded_run(key: str, *, model: str, day: int, value: float) -> RunRecord:
    """Return a scored run of MATH500 with one shard, which held a GPU for 90 seconds.

    Args:
        key: the run's.
        model: its name.
        day: of November 2026, on which it ran.
        value: accuracy; that of the subset Algebra is the same.
    """
    started = datetime.datetime(2026, 11, day, 1, tzinfo=datetime.UTC)
    finished = started + datetime.timedelta(minutes=5)
    metrics = [
        MetricRecord(
            benchmark="MATH500",
            benchmark_version="1",
            metric="accuracy",
            subset=subset,
            value=value,
            n=500,
            coverage=1.0,
            judge_version="math-1",
        )
        for subset in ("", "Algebra")
    ]
    attempt = AttemptRecord(
        rank=0,
        attempt=1,
        state="ended_well",
        job_id="57_0",
        elapsed_s=90,
        gpus=1,
        done=500,
        ended_at=finished,
    )
    return RunRecord(
        run_key=key,
        model=ModelRecord(name=model, revision="main", path=f"/models/{model}"),
        fingerprint="f",
        cluster="local",
        status="scored",
        num_shards=1,
        requests=500,
        started_at=started,
        finished_at=finished,
        metrics=tuple(metrics),
        attempts=(attempt,),
    )
