"""A profile names the pages of its site's portal."""

from pathlib import Path

import pytest

from nightshard.clusters.profile import load_profile
from nightshard.clusters.site import portal_link
from nightshard.core.errors import UserError

pytestmark = pytest.mark.unit

PROFILE = """\
title: Test
ssh_conn_id: test
workdir: /work
worker: {python: python3}
models: {dir: /models}
links: {job: "%s"}
"""


def test_a_link_is_filled_with_quoted_values() -> None:
    assert portal_link("https://p.example.org/j?id={job_id}", job_id="7_0&x=1") == (
        "https://p.example.org/j?id=7_0%26x%3D1"
    )
    assert portal_link("https://p.example.org{path}", path="/a b#c") == (
        "https://p.example.org/a%20b%23c"
    )


@pytest.mark.parametrize(
    "link",
    [
        "javascript:alert({job_id})",
        "ftp://p.example.org/{job_id}",
        "https://p.example.org/{job}",
        "https://p.example.org/",
        "{job_id}",
    ],
)
def test_a_link_that_cannot_work_is_refused_with_its_key(tmp_path: Path, link: str) -> None:
    file = tmp_path / "test.yaml"
    file.write_text(PROFILE % link)
    with pytest.raises(UserError, match=r"links\.job is .* give an http\(s\) address"):
        load_profile(file, {})


def test_a_good_link_is_taken(tmp_path: Path) -> None:
    file = tmp_path / "test.yaml"
    file.write_text(PROFILE % "https://p.example.org/jobs/{job_id}/show")
    assert load_profile(file, {}).links.job == "https://p.example.org/jobs/{job_id}/show"
