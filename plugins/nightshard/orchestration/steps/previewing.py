"""What a run would do and cost, before anything is submitted: the dry run."""

from collections import Counter
from collections.abc import Sequence

from nightshard.clusters.profile import ClusterProfile
from nightshard.clusters.script import shard_script
from nightshard.clusters.submission import first_submissions
from nightshard.core.plan import CHARACTERS_PER_TOKEN, split_into_shards
from nightshard.core.requests import Request
from nightshard.core.run_plan import RunPlan
from nightshard.core.scaling import Pace
from nightshard.orchestration.steps import Json, current_settings, profile_of, store_of
from nightshard.orchestration.steps.moving import shards_of
from nightshard.orchestration.steps.preparing import asked_now, pace_of

NO_PACE = "no earlier run of a like model on this cluster tells how long it takes"


def preview(plan: Json) -> Json:
    """Work out everything up to the batch script.

    Returns:
        ``text`` for people, and ``requests``, ``reused``, ``world_size``, ``output_tokens``,
        ``prompt_tokens``, ``wall_seconds`` and ``gpu_hours`` (None where no earlier run tells) and
        ``most_gpu_hours``, which the time limit allows.

    Raises:
        UserError: as ``prepare_dataset`` would.
    """
    run = RunPlan.from_dict(plan)
    profile, asked = profile_of(run), asked_now(run, store_of(run))
    shards = split_into_shards(asked.missing, asked.world_size) if asked.missing else []
    pace = pace_of(run)
    tokens = sum(expected_tokens(one) for one in asked.missing)
    prompt = sum(len(m["content"]) for one in asked.missing for m in one.messages)
    gpus = max(profile.gpus_per_shard(), 1)
    count = len(shards)
    most = count * gpus * run.max_job_minutes / 60
    numbers = {
        "requests": len(asked.requests),
        "reused": len(asked.requests) - len(asked.missing),
        "world_size": count,
        "output_tokens": tokens,
        "prompt_tokens": prompt // CHARACTERS_PER_TOKEN,
        "wall_seconds": pace.wall(tokens, count) if pace and count else None,
        "gpu_hours": pace.busy(tokens, count) * gpus / 3600 if pace and count else None,
        "most_gpu_hours": most,
    }
    lines = [
        f"Dry run of {run.run_key}: nothing was submitted.",
        f"{run.model_name} at {run.model_revision} on {profile.title}",
        *_by_benchmark(asked.requests, asked.missing),
        f"{len(asked.requests)} requests, {numbers['reused']} answered already, "
        f"{len(asked.missing)} to generate in {count} shards{_rows(shards)}",
        f"expected: {tokens:,} output tokens after {numbers['prompt_tokens']:,} of prompts",
        *_cost(profile, pace, numbers),
        "",
        *(_script(run, profile, [len(one) for one in shards]) if shards else []),
    ]
    return {**numbers, "text": "\n".join(lines)}


def expected_tokens(request: Request) -> int:
    """Return the output tokens that a request is expected to take."""
    longest = request.sampling.max_tokens
    return min(request.expected_tokens or longest, longest)


def _by_benchmark(requests: Sequence[Request], missing: Sequence[Request]) -> list[str]:
    all_of, left = (Counter(one.benchmark for one in some) for some in (requests, missing))
    tokens: Counter[str] = Counter()
    for one in missing:
        tokens[one.benchmark] += expected_tokens(one)
    return [
        f"  {name}: {count} requests, {left[name]} to generate, {tokens[name]:,} tokens expected"
        for name, count in all_of.items()
    ]


def _rows(shards: Sequence[Sequence[Request]]) -> str:
    sizes = sorted(map(len, shards))
    if not sizes:
        return ""
    return f" of {sizes[0]}" + (f" to {sizes[-1]}" if sizes[-1] > sizes[0] else "")


def _cost(profile: ClusterProfile, pace: Pace | None, numbers: Json) -> list[str]:
    if not numbers["world_size"]:
        return ["no GPU is needed"]
    most = f"at most {numbers['most_gpu_hours']:.1f} GPU hours by the time limit"
    if pace is None:
        return [f"{NO_PACE}; {most}"]
    price = profile.site.gpu_hour_cost
    cost = f", about {numbers['gpu_hours'] * price:.2f} {profile.site.currency}" if price else ""
    return [
        f"about {numbers['wall_seconds'] / 60:.0f} min from the first shard's start and "
        f"{numbers['gpu_hours']:.2f} GPU hours{cost}, by {pace.runs} earlier runs; {most}"
    ]


def _script(run: RunPlan, profile: ClusterProfile, rows: Sequence[int]) -> list[str]:
    shard = shards_of(run, profile, rows)[0]
    submissions = list(
        first_submissions(shard.layout, shard.world_size, shard.array_size, shard.per_job)
    )
    more = f", the first of {len(submissions)}" if len(submissions) > 1 else ""
    script = shard_script(profile, shard, submissions[0], current_settings().templates)
    return [f"The batch script{more}:", *script.splitlines()]
