"""What a login node prints becomes a profile that can be used."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from nightshard.clusters.errors import TransportError
from nightshard.clusters.guide import BEGIN, END, block, new_page, refreshed, with_measurement
from nightshard.clusters.profile import ClusterProfile, load_named, load_profile, profile_names
from nightshard.clusters.survey import Answers, hours_of, propose, read_survey
from nightshard.core.settings import PROJECT_ROOT

pytestmark = pytest.mark.unit

NONCE = "0123"
SHARED = """\
cpu*|up|1-00:00:00|n1|64|256000|(null)|NO
gpu|up|2-00:00:00|g1|64|512000|gpu:a100:4|NO
gpu|up|2-00:00:00|g2|64|512000|gpu:a100:4|NO
old|down|2-00:00:00|o1|16|64000|gpu:2|NO
big|up|infinite|b1|128+|1024000+|gpu:h100:8(S:0-7),lustre:1|EXCLUSIVE
"""


def printed(nodes: str = SHARED, accounts: str = "p1|500\np2|\n", internet: str = "yes") -> str:
    sections = {
        "host": "login07.example.org\n",
        "folders": "WORK=/work/me\nHOME=/home/me\n",
        "nodes": nodes,
        "config": "MaxArraySize            = 2001\nSLURM_VERSION           = 24.05.1\n",
        "accounts": accounts,
        "sacct": "yes\n",
        "internet": f"{internet}\n",
        "end": "",
    }
    return "".join(f"\n@{NONCE} {title}\n{body}" for title, body in sections.items())


def proposed(tmp_path: Path, partition: str, text: str | None = None) -> ClusterProfile:
    survey = read_survey(printed() if text is None else text, NONCE)
    answers = Answers(
        name="site",
        title="Site",
        connection="nightshard_site",
        workdir="/work/me/nightshard",
        partition=partition,
        account=survey.accounts[0] if survey.accounts else None,
        python="/work/me/env/bin/python",
        models="/work/me/models",
    )
    file = tmp_path / "site.yaml"
    file.write_text(yaml.safe_dump(propose(survey, answers), sort_keys=False))
    return load_profile(file, {})


def test_a_shard_gets_one_gpu_and_its_part_of_a_shared_node(tmp_path: Path) -> None:
    profile = proposed(tmp_path, "gpu")
    assert profile.slurm.gres == "gpu:a100:1"
    assert (profile.slurm.cpus_per_task, profile.slurm.mem) == (16, "115200M")
    assert profile.slurm.account == "p1"
    assert (profile.slurm.max_array_size, profile.slurm.max_submitted) == (2001, 500)
    assert profile.slurm.accounting == "yes"
    assert profile.limits.max_job_hours == 48
    assert profile.models.download == "login"
    assert profile.site.has_host("login01.example.org")
    assert not profile.site.has_host("login01.example.org.evil.org")


def test_shards_share_a_node_that_is_given_whole(tmp_path: Path) -> None:
    profile = proposed(tmp_path, "big")
    assert (profile.slurm.gres, profile.slurm.shards_per_job) == ("gpu:h100:8", 8)
    assert profile.slurm.cpus_per_task == 128
    assert profile.gpus_per_shard() == 1


@given(order=st.permutations(SHARED.splitlines()))
def test_partitions_with_gpus_that_are_up_are_offered_the_largest_first(order: list[str]) -> None:
    survey = read_survey(printed("\n".join(order)), NONCE)
    assert [one.name for one in survey.partitions] == ["gpu", "big"]


@given(order=st.permutations(SHARED.replace("big|", "big*|").splitlines()))
def test_the_default_partition_is_offered_before_larger_ones(order: list[str]) -> None:
    survey = read_survey(printed("\n".join(order)), NONCE)
    assert [one.name for one in survey.partitions] == ["big", "gpu"]


def test_a_site_without_gpus_accounts_and_internet_can_still_be_described(tmp_path: Path) -> None:
    text = printed(nodes="cpu|up|1:00:00|n1|64|256000|(null)|NO\n", accounts="", internet="")
    profile = proposed(tmp_path, "cpu", text)
    assert (profile.slurm.gres, profile.slurm.account) == (None, None)
    assert profile.models.download == "none"


def test_an_answer_that_was_cut_is_not_taken() -> None:
    text = printed()
    with pytest.raises(TransportError, match="cut short"):
        read_survey(text[: text.rindex("\n@")], NONCE)


@pytest.mark.parametrize(
    ("limit", "hours"),
    [("30:00", 0.5), ("1:00:00", 1), ("2-00:00:00", 48), ("infinite", None), ("n/a", None)],
)
def test_a_time_limit_is_read(limit: str, hours: float | None) -> None:
    assert hours_of(limit) == hours


CLUSTERS = PROJECT_ROOT / "include" / "clusters"


@pytest.mark.parametrize("name", profile_names(CLUSTERS))
def test_the_page_on_a_cluster_says_what_its_profile_says(name: str) -> None:
    profile = load_named(CLUSTERS, name, {"NIGHTSHARD_STATE": "/state"})
    page = (PROJECT_ROOT / "docs" / "clusters" / f"{name}.md").read_text()
    assert refreshed(page, profile) == page, "run `nightshard cluster guide`"
    assert "Nothing yet." not in page


def test_facts_that_few_profiles_have_are_on_the_page_of_those() -> None:
    profile = load_named(CLUSTERS, "vista", {})
    facts = {"scratch": "/scratch/me", "manual": "https://docs.example.org", "gpu_hour_cost": 0.5}
    told = block(profile.model_copy(update={"site": profile.site.model_copy(update=facts)}))
    for line in (
        "| scratch | `/scratch/me` |",
        "| the site's manual | <https://docs.example.org> |",
        "| a GPU hour costs | 0.5 EUR |",
    ):
        assert line in told
        assert line not in block(profile)


def test_what_people_wrote_on_a_page_stays() -> None:
    profile = load_named(CLUSTERS, "vista", {})
    page = new_page(profile).replace("Nothing yet.", "Ask Ann.")
    other = profile.model_copy(update={"title": "Other"})
    changed = profile.slurm.model_copy(update={"partition": "gg"})
    again = refreshed(page, other.model_copy(update={"slurm": changed}))
    assert "| partition | gg |" in again
    assert "Ask Ann." in again
    assert again.count(BEGIN) == again.count(END) == 1
    assert refreshed(again, profile) == page


def test_a_sweep_is_written_into_the_page_once() -> None:
    profile = load_named(CLUSTERS, "vista", {})
    page = with_measurement(new_page(profile), "| shards |\n| 1 |")
    page = with_measurement(page, "| shards |\n| 2 |")
    assert "| 2 |" in page
    assert "| 1 |" not in page
    assert block(profile) in page
