"""What a profile says of its site: links to the portal, and facts for people."""

import re
from typing import Annotated
from urllib.parse import quote

from pydantic import AfterValidator, Field, StringConstraints

from nightshard.clusters.fields import RemotePath, Section


def _link(value: str) -> str:
    if not re.fullmatch(r"https?://[^\s{}]+(\{(job_id|path)\}[^\s{}]*)+", value):
        raise ValueError(
            "give an http(s) address with {job_id} or {path} where the job's id or the file's path "
            "belongs"
        )
    return value


class Links(Section):
    """Pages of the site's own portal, for the buttons on a shard.

    ``job`` is the page of a Slurm job, with ``{job_id}`` (``1234_0``) in it, and ``file`` the page
    of a file, with ``{path}``.
    """

    job: Annotated[str, AfterValidator(_link)] | None = None
    file: Annotated[str, AfterValidator(_link)] | None = None


def _pattern(value: str) -> str:
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"give a regular expression ({error})") from None
    return value


class Site(Section):
    """Facts of the site: for people, for finding the profile by a host's name, and for costs.

    ``hosts`` are regular expressions that a login node's whole name matches. ``internet`` says
    whether the GPU nodes reach it, ``shared_nodes`` whether jobs share a node.
    """

    hosts: tuple[Annotated[str, AfterValidator(_pattern)], ...] = ()
    gpu: str | None = None
    gpus_per_node: Annotated[int, Field(ge=1)] | None = None
    internet: bool | None = None
    shared_nodes: bool | None = None
    scratch: RemotePath | None = None
    gpu_hour_cost: Annotated[float, Field(ge=0)] | None = None
    currency: Annotated[str, StringConstraints(pattern=r"^[A-Za-z]{1,12}$")] = "EUR"
    manual: Annotated[str, StringConstraints(pattern=r"^https?://\S+$")] | None = None
    quirks: tuple[str, ...] = ()

    def has_host(self, name: str) -> bool:
        """Whether a host's full name is one of the site's login nodes."""
        return any(re.fullmatch(pattern, name) for pattern in self.hosts)


def portal_link(template: str, *, job_id: str = "", path: str = "") -> str:
    """Fill a link of :class:`Links` in; what it is filled with is quoted."""
    return template.replace("{job_id}", quote(job_id)).replace("{path}", quote(path))
