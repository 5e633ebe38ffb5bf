"""The page on a cluster: what its profile says, so that the page cannot drift from it. Pure."""

from collections.abc import Iterator, Mapping
from typing import Any

from nightshard.clusters.detect import unfilled
from nightshard.clusters.profile import ClusterProfile

BEGIN = "<!-- begin: written by `nightshard cluster guide`, from the profile -->"
END = "<!-- end -->"

MEASURED_BEGIN = "<!-- begin: written by `nightshard sweep --write` -->"


def new_page(profile: ClusterProfile) -> str:
    """Return a whole page, with room for what people know."""
    return f"# {profile.title}\n\n{block(profile)}\n\n## Good to know\n\nNothing yet.\n"


def refreshed(page: str, profile: ClusterProfile) -> str:
    """Return a page with the part anew that follows from the profile; the rest stays."""
    return replaced(page, BEGIN, block(profile))


def with_measurement(page: str, table: str) -> str:
    """Return a page with the part anew that a sweep has measured."""
    return replaced(page, MEASURED_BEGIN, f"{MEASURED_BEGIN}\n\n{table.strip()}\n\n{END}")


def replaced(page: str, begin: str, text: str) -> str:
    """Replace a marked part of a page, or append it."""
    before, found, rest = page.partition(begin)
    if not found:
        return f"{page.rstrip()}\n\n{text}\n"
    return before + text + rest.partition(END)[2]


def block(profile: ClusterProfile) -> str:
    """Return the part of a page that follows from the profile."""
    return "\n".join([BEGIN, "", *_lines(profile), "", END])


def _lines(profile: ClusterProfile) -> Iterator[str]:
    name = profile.name
    yield f"Profile: `include/clusters/{name}.yaml`. Airflow connection: `{profile.ssh_conn_id}`."
    yield ""
    yield from ("| what | value |", "|---|---|")
    for what, value in _facts(profile).items():
        yield f"| {what} | {value} |"
    yield from _quirks(profile)
    yield from (
        "",
        "## Set up",
        "",
        f"1. Fill in the profile{_blanks(profile)}, and add the connection "
        f"`{profile.ssh_conn_id}` in Airflow ([connections](../connections.md)).",
        "2. Bring the worker there ([install offline](../worker.md#install-offline)).",
        "3. Check everything, from the login to a job that answers one question:",
        "",
        "    ```bash",
        f"    nightshard doctor --cluster {name}",
        "    ```",
        "",
        "4. Find the best number of shards and write it here:",
        "",
        "    ```bash",
        f"    nightshard sweep --cluster {name} --model-name org/name --preset math --write",
        "    ```",
    )


def _facts(profile: ClusterProfile) -> Mapping[str, Any]:
    slurm, site = profile.slurm, profile.site
    known = {True: "yes", False: "no", None: "not known"}
    per_job = slurm.shards_per_job
    facts = {
        "login nodes": ", ".join(f"`{_cell(one)}`" for one in site.hosts) or "not known",
        "GPUs of a node": " ".join(str(one) for one in (site.gpus_per_node, site.gpu) if one)
        or "not known",
        "internet on GPU nodes": known[site.internet],
        "jobs share nodes": known[site.shared_nodes],
        "partition": slurm.partition or "the site's default",
        "a job asks for": ", ".join(
            filter(
                None,
                (
                    slurm.gres and f"`{slurm.gres}`",
                    f"{slurm.cpus_per_task} CPUs" if slurm.cpus_per_task else None,
                    slurm.mem,
                    f"{per_job} shards share it" if per_job > 1 else None,
                    *(f"`{one}`" for one in slurm.extra_directives),
                ),
            )
        ),
        "models": f"fetched on the {profile.models.download} node"
        if profile.models.download != "none"
        else "copied there by hand",
        "a run's default": f"{profile.defaults.num_shards} shards, "
        f"{profile.defaults.max_job_hours:g} h each",
        "at most": f"{profile.limits.max_shards or 'any number of'} shards, "
        f"{profile.limits.max_job_hours or 0:g} h each",
        "Slurm is asked": f"every {profile.polling.floor_s:g} to {profile.polling.ceiling_s:g} s",
        "requeued by the site": known[slurm.requeue],
    }
    if site.scratch is not None:
        facts["scratch"] = f"`{site.scratch}`"
    if site.manual is not None:
        facts["the site's manual"] = f"<{site.manual}>"
    if site.gpu_hour_cost is not None:
        facts["a GPU hour costs"] = f"{site.gpu_hour_cost:g} {site.currency}"
    return facts


def _quirks(profile: ClusterProfile) -> Iterator[str]:
    if profile.site.quirks:
        yield ""
        yield from (f"- {quirk}" for quirk in profile.site.quirks)


def _blanks(profile: ClusterProfile) -> str:
    left = unfilled(profile)
    return f" ({', '.join(f'`{one}`' for one in left)} hold examples)" if left else ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
