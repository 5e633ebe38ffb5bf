"""A profile that is wrong is refused in one sentence with file, line and key."""

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightshard.clusters.marked_yaml import parse_marked
from nightshard.clusters.profile import ClusterProfile, load_named, load_profile, profile_names
from nightshard.core.errors import UserError
from nightshard.core.settings import PROJECT_ROOT

pytestmark = pytest.mark.unit

GOOD = """\
title: A cluster
ssh_conn_id: site
workdir: ${WORK}/nightshard
slurm:
  partition: ${PARTITION:-gpu}
  accounting: no
worker:
  python: /opt/env/bin/python
  setup:
    - module load cuda
  env:
    HF_HUB_OFFLINE: 1
models:
  dir: /models
polling:
  floor_s: 5
"""
ENVIRON = {"WORK": "/scratch/me"}


def write(folder: Path, text: str, name: str = "site") -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(text)
    return path


def test_a_good_profile_is_read_with_its_variables(tmp_path: Path) -> None:
    profile = load_profile(write(tmp_path, GOOD), ENVIRON)

    assert profile.name == "site"
    assert profile.workdir == "/scratch/me/nightshard"
    assert profile.slurm.partition == "gpu"
    assert profile.slurm.accounting == "no"
    assert profile.worker.env == {"HF_HUB_OFFLINE": "1"}


def test_the_local_profile_is_good() -> None:
    folder = PROJECT_ROOT / "include" / "clusters"

    assert "local" in profile_names(folder)
    profile = load_named(folder, "local", {"NIGHTSHARD_STATE": "/state"})
    assert profile.workdir == "/state/local-cluster/shared/nightshard"


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        (
            "partition:",
            "partitoin:",
            "line 5: there is no key slurm.partitoin; did you mean partit",
        ),
        ("title: A cluster\n", "", "line 1: title is missing; add it."),
        (
            "  dir: /models",
            "  dri: /models",
            "line 14: there is no key models.dri; did you mean dir",
        ),
        ("floor_s: 5", "floor_s: soon", "line 16: polling.floor_s is 'soon'"),
        ("floor_s: 5", "floor_s: 500", "line 16: polling.floor_s is above polling.ceiling_s"),
        ("/opt/env/bin/python", "/opt/my env/python", "line 8: worker.python is '/opt/my env"),
        ("/models", "models", "line 14: models.dir is 'models', which cannot be used; give an abs"),
        ("/models", "/models/../etc", "line 14: models.dir"),
        ("${WORK}", "${WROK}", "line 3: the variable WROK is not set"),
        ("${PARTITION:-gpu}", "'gpu; rm -rf /'", "line 5: slurm.partition"),
        ("${PARTITION:-gpu}", '"gpu\\n#SBATCH --uid=0"', "line 5: slurm.partition"),
        ("HF_HUB_OFFLINE: 1", "'A B': 1", "line 12: worker.env.A B"),
        ("HF_HUB_OFFLINE: 1", 'A: "x\\ny"', "line 12: worker.env.A"),
        ("  accounting: no", "  extra_directives: [--output=x]", "--output is set by Nightshard"),
        ("  accounting: no", '  extra_directives: ["--comment=a b"]', "without spaces or quotes"),
        ("  accounting: no", "  partition: other", "line 6: partition is given twice; keep one."),
        (
            "  accounting: no",
            "  gres: gpu:4\n  shards_per_job: 3",
            "line 7: slurm.shards_per_job is 3, among which 4 GPUs cannot be shared equally",
        ),
        (
            "  accounting: no",
            "  nodes_per_shard: 2",
            "line 6: slurm.nodes_per_shard is 2, and the engine cannot spread 1 parallel processes",
        ),
        (
            "  accounting: no",
            "  gres: gpu:2\nengine:\n  tensor_parallel: 4",
            "line 8: the engine asks for 4 GPUs and a shard holds 2",
        ),
        (
            "  accounting: no",
            "  accounting: no\nscoring:\n  where: slurm",
            "line 8: scoring.python is missing; name the Python on the cluster that judges",
        ),
        ("title: A", "title: [", "not valid YAML"),
        ("title: A cluster", "name: other\ntitle: x", "line 1: name must equal the file name"),
    ],
)
def test_a_bad_profile_gets_one_sentence_with_its_line(
    tmp_path: Path, old: str, new: str, sentence: str
) -> None:
    assert old in GOOD
    path = write(tmp_path, GOOD.replace(old, new, 1))

    with pytest.raises(UserError) as caught:
        load_profile(path, ENVIRON)

    assert str(caught.value).startswith(f"{path}, line ")
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "- a\n", "just words\n"])
def test_a_file_without_keys_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(UserError, match="line 1: expected keys and values"):
        load_profile(write(tmp_path, text), ENVIRON)


def test_an_unknown_cluster_is_told_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no profile"):
        load_named(tmp_path, "leonardo", ENVIRON)
    write(tmp_path, GOOD, "leonardo")
    write(tmp_path, GOOD, "jureca")

    with pytest.raises(UserError) as caught:
        load_named(tmp_path, "leonrado", ENVIRON)

    assert str(caught.value) == (
        "There is no cluster 'leonrado'; did you mean 'leonardo'? Known clusters: jureca, leonardo."
    )


def test_a_name_cannot_leave_the_folder(tmp_path: Path) -> None:
    write(tmp_path, GOOD, "outside")
    inner = tmp_path / "clusters"
    inner.mkdir()
    write(inner, GOOD, "inside")

    with pytest.raises(UserError, match="There is no cluster"):
        load_named(inner, "../outside", ENVIRON)


@given(st.text(st.characters(blacklist_categories=["Cs"]), max_size=200))
def test_any_text_is_read_or_refused_in_a_sentence(text: str) -> None:
    with contextlib.suppress(UserError):  # anything else that is raised fails the test
        assert isinstance(parse_marked(text, "file.yaml", {}).value, dict)


@pytest.mark.parametrize(
    ("slurm", "gpus"),
    [
        ({}, 0),
        ({"gres": "gpu:1"}, 1),
        ({"gres": "gpu"}, 1),
        ({"gres": "gpu:a100"}, 1),
        ({"gres": "gpu:a100:4,nvme:1"}, 4),
        ({"gres": "nvme:1"}, 0),
        ({"extra_directives": ["--gpus-per-node=h100:2"]}, 2),
        ({"extra_directives": ["--gpus=3", "--reservation=eval"]}, 3),
    ],
    ids=str,
)
def test_the_gpus_of_an_element_are_those_that_its_options_ask_for(
    slurm: dict[str, object], gpus: int
) -> None:
    values = {
        "name": "site",
        "title": "Site",
        "ssh_conn_id": "site",
        "workdir": "/w",
        "worker": {"python": "python"},
        "models": {"dir": "/m"},
        "slurm": slurm,
    }
    assert ClusterProfile.model_validate(values).gpus() == gpus
