"""The params form of ``evaluate``."""

from airflow.sdk import Param

from nightshard.benchmarks import registry
from nightshard.clusters.detect import AUTO, default_profile
from nightshard.clusters.profile import profile_names
from nightshard.core.presets import OPTIMISE, PRESETS
from nightshard.core.settings import Settings

DEFAULT_TASKS = ("Starter",)


def default_cluster(settings: Settings) -> str:
    """Return the cluster of a run that names none: ``NIGHTSHARD_CLUSTER``, else ``local``."""
    return default_profile(settings.clusters, settings.cluster)


def evaluate_form(settings: Settings) -> dict[str, Param]:
    """Describe every parameter: its default, what it means and what Airflow may check at once.

    The full check is :func:`nightshard.core.run_params.parse_run_params`, in the task ``plan``.
    """
    clusters = profile_names(settings.clusters)
    titles = {name: registry.info(name).title for name in registry.names()}
    what = "What to evaluate"
    where = "Where and how much"
    sampling = "Sampling"
    after = "Afterwards"
    return {
        "model": Param(
            "",
            type="string",
            title="Model",
            description="A folder on the cluster, or a Hub id such as `org/name`.",
            section=what,
        ),
        "revision": Param(
            None,
            type=["string", "null"],
            title="Revision",
            description="Branch, tag or commit of a Hub model. Empty: its main branch.",
            section=what,
        ),
        "adapter": Param(
            None,
            type=["string", "null"],
            title="Adapter",
            description="A LoRA adapter: a folder on the cluster, or org/name@revision of the Hub. "
            "Empty: none.",
            section=what,
        ),
        "preset": Param(
            None,
            type=["string", "null"],
            enum=[*PRESETS, None],
            values_display={name: f"{name}: {one.title}" for name, one in PRESETS.items()},
            title="Preset",
            description="A set of benchmarks, in place of those below. Empty: those below.",
            section=what,
        ),
        "tasks": Param(
            list(DEFAULT_TASKS),
            type=["array", "null"],
            items={"type": "string"},
            examples=list(titles),
            values_display=titles,
            title="Benchmarks",
            description="One or more benchmarks.",
            section=what,
        ),
        "source": Param(
            {},
            type=["object", "null"],
            title="Question files",
            description=(
                "Local files in place of the Hub, by benchmark: "
                '`{"MATH500": "/data/math500.jsonl"}`. Empty: from the Hub.'
            ),
            section=what,
        ),
        "limit": Param(
            None,
            type=["integer", "null"],
            minimum=1,
            title="Limit",
            description="Only the first n problems of each benchmark. Empty: all.",
            section=what,
        ),
        "force": Param(
            False,
            type="boolean",
            title="Force",
            description="Generate every answer again, even those that exist.",
            section=what,
        ),
        "gate": Param(
            None,
            type=["string", "null"],
            examples=["previous", "best"],
            title="Gate",
            description="Fail the run's task `gate` where it is worse than the `previous` or the "
            "`best` checkpoint, or as a policy of `include/gates/` says. Scores stay. Empty: none.",
            section=after,
        ),
        "publish": Param(
            None,
            type=["string", "null"],
            enum=["hub", "folder", "no", None],
            title="Publish",
            description="Answers, scores and a card to the Hub, or into a folder. Empty: to the "
            "Hub where the connection `nightshard_hub` exists.",
            section=after,
        ),
        "dry_run": Param(
            False,
            type="boolean",
            title="Dry run",
            description="Check everything, say what would run and what it would cost, and submit "
            "nothing.",
            section=what,
        ),
        "asked_by": Param(
            None,
            type=["string", "null"],
            title="Asked by",
            description="Filled in by other DAGs: the run that asked for this one.",
            section=after,
        ),
        "cluster": Param(
            default_cluster(settings),
            type="string",
            enum=[*clusters, AUTO] if clusters else [""],
            values_display={AUTO: "auto: where it starts first"},
            title="Cluster",
            description="A profile of `include/clusters/`.",
            section=where,
        ),
        "num_shards": Param(
            None,
            type=["integer", "null"],
            minimum=1,
            title="Shards",
            description="Into how many array elements the questions are split. "
            "Empty: as Optimise says, else the cluster's default.",
            section=where,
        ),
        "optimise": Param(
            None,
            type=["string", "null"],
            enum=[*OPTIMISE, None],
            values_display=OPTIMISE,
            title="Optimise",
            description="Choose the number of shards by what earlier runs took. Empty: no.",
            section=where,
        ),
        "max_job_hours": Param(
            None,
            type=["number", "null"],
            exclusiveMinimum=0,
            title="Max job hours",
            description="Time limit of each shard. Empty: the cluster's default.",
            section=where,
        ),
        "balance": Param(
            None,
            type=["string", "null"],
            enum=["steal", "static", None],
            title="Balance",
            description="`steal`: a shard with room takes questions that others have not begun. "
            "`static`: each keeps to its own. Empty: the cluster's default.",
            section=where,
        ),
        "temperature": Param(
            None,
            type=["number", "null"],
            minimum=0,
            maximum=10,
            title="Temperature",
            description="0 is greedy. Empty: the benchmark's own.",
            section=sampling,
        ),
        "top_p": Param(
            None,
            type=["number", "null"],
            exclusiveMinimum=0,
            maximum=1,
            title="Top-p",
            description="Probability mass kept. Empty: the benchmark's own.",
            section=sampling,
        ),
        "max_tokens": Param(
            None,
            type=["integer", "null"],
            minimum=1,
            title="Max tokens",
            description="Longest answer, in tokens. Empty: the benchmark's own.",
            section=sampling,
        ),
        "repeats": Param(
            None,
            type=["integer", "null"],
            minimum=1,
            title="Repeats",
            description="How often each problem is asked. Empty: the benchmark's own.",
            section=sampling,
        ),
        "seed": Param(
            0,
            type="integer",
            minimum=0,
            title="Seed",
            description="Base of the seeds; every request gets its own.",
            section=sampling,
        ),
        "system_prompt": Param(
            None,
            type=["string", "null"],
            format="multiline",
            title="System prompt",
            description="Put before each question. Empty: none.",
            section=sampling,
        ),
        "logprobs": Param(
            False,
            type="boolean",
            title="Log-probabilities",
            description="Keep each token's log-probability in the shards' outputs.",
            section=sampling,
        ),
        "chat_template_args": Param(
            {},
            type=["object", "null"],
            title="Chat template arguments",
            description=('Variables for the model\'s chat template: `{"enable_thinking": false}`.'),
            section=sampling,
        ),
    }
