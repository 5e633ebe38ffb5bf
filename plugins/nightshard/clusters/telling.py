"""A shard's status as a sentence for people. Pure."""

from nightshard.clusters.status import ShardStatus
from nightshard.core.story import ShardProgress, progress_sentence


def sentence_of(status: ShardStatus) -> str:
    """Say where a shard stands: in the queue, at work with so many answers, done."""
    manifest, progress = status.manifest, status.progress
    if status.relieved:
        return f"Slurm job {status.job_id}: {status.message}"
    if manifest is not None:
        told = ShardProgress("done", manifest.node, manifest.rows, manifest.rows)
        return progress_sentence(told)
    if progress is None or status.node is None or not status.at_work:
        return f"Slurm job {status.job_id}: {status.message}"
    rate = round(progress.tokens_per_s) or None
    told = ShardProgress(progress.phase, status.node, progress.done, progress.total, rate)
    return progress_sentence(told)
