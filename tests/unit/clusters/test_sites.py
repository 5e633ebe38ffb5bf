"""The profiles of real sites: they load as they are, know their login nodes, and say what is theirs
to fill in."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from nightshard.clusters.detect import check_filled_in, default_profile, profile_of_host, unfilled
from nightshard.clusters.profile import load_named, profile_names
from nightshard.clusters.rehearsal import rehearsal_script
from nightshard.core.errors import UserError
from nightshard.core.settings import PROJECT_ROOT

pytestmark = pytest.mark.unit

CLUSTERS = PROJECT_ROOT / "include" / "clusters"
TEMPLATES = PROJECT_ROOT / "include" / "sbatch"
ENVIRON = {"NIGHTSHARD_STATE": "/state"}
SITES = ["alpha", "capella", "claix", "jureca", "leonardo", "vista"]


def test_the_profiles_are_those_of_the_predecessor_and_the_local_one() -> None:
    assert profile_names(CLUSTERS) == sorted([*SITES, "local"])


@pytest.mark.parametrize("name", SITES)
def test_a_site_is_refused_until_its_account_and_folders_are_filled_in(name: str) -> None:
    example = load_named(CLUSTERS, name, ENVIRON)
    assert {"workdir", "slurm.account", "models.dir", "worker.python"} == set(unfilled(example))
    with pytest.raises(UserError, match=r"slurm\.account still holds an example"):
        check_filled_in(example)
    own = {f"{name.upper()}_ACCOUNT": "p1", f"{name.upper()}_WORK": "/work/p1"}
    filled = load_named(CLUSTERS, name, {**ENVIRON, **own})
    check_filled_in(filled)
    assert filled.workdir == "/work/p1/nightshard"


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("login01.leonardo.local", "leonardo"),
        ("login02-ext.leonardo.cineca.it", "leonardo"),
        ("c1", "capella"),
        ("c2", "capella"),
        ("jrlogin05.jureca", "jureca"),
        ("login1.vista.tacc.utexas.edu", "vista"),
        ("login1.alpha.hpc.tu-dresden.de", "alpha"),
        ("login23-g-1.hpc.itc.rwth-aachen.de", "claix"),
        # A part of a name is not the name.
        ("leonardo.example.org", None),
        ("login01.leonardo.local.example.org", None),
        ("pc1", None),
        ("c1x", None),
        ("xjr.jureca.example", None),
        ("localhost", None),
    ],
)
def test_a_login_node_is_known_by_its_whole_name(host: str, name: str | None) -> None:
    assert profile_of_host(CLUSTERS, host, ENVIRON) == name


def test_a_host_that_two_profiles_claim_is_nobodys(tmp_path: Path) -> None:
    text = (CLUSTERS / "capella.yaml").read_text()
    (tmp_path / "one.yaml").write_text(text)
    assert profile_of_host(tmp_path, "c1", ENVIRON) == "one"
    (tmp_path / "two.yaml").write_text(text)
    (tmp_path / "broken.yaml").write_text("title: [")
    assert profile_of_host(tmp_path, "c1", ENVIRON) is None


def test_a_run_that_names_no_cluster_goes_to_the_local_one(tmp_path: Path) -> None:
    assert default_profile(CLUSTERS) == "local"
    assert default_profile(CLUSTERS, "vista") == "vista"
    assert default_profile(CLUSTERS, "nowhere") == "local"
    assert default_profile(tmp_path) == ""


@pytest.mark.parametrize("name", [*SITES, "local"])
@pytest.mark.parametrize("shards", [1, 13])
def test_a_rendered_script_passes_shellcheck(name: str, shards: int, tmp_path: Path) -> None:
    profile = load_named(CLUSTERS, name, ENVIRON)
    script = tmp_path / "script.sh"
    script.write_text(rehearsal_script(profile, 60, TEMPLATES, shards))
    shellcheck = shutil.which("shellcheck", path=str(Path(sys.executable).parent))
    assert shellcheck is not None
    done = subprocess.run([shellcheck, script], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("name", "gpus", "per_shard"),
    [("jureca", 4, 1), ("alpha", 8, 1), ("vista", 1, 1), ("leonardo", 1, 1)],
)
def test_a_shard_holds_one_gpu_also_where_nodes_are_given_whole(
    name: str, gpus: int, per_shard: int
) -> None:
    profile = load_named(CLUSTERS, name, ENVIRON)
    assert (profile.gpus(), profile.gpus_per_shard()) == (gpus, per_shard)


def test_a_sites_template_changes_its_own_block_alone() -> None:
    claix = load_named(CLUSTERS, "claix", ENVIRON)
    slurm = claix.slurm.model_copy(update={"nodes_per_shard": 2})
    two_nodes = claix.model_copy(update={"slurm": slurm})
    its_own = rehearsal_script(two_nodes, 60, TEMPLATES)
    base = rehearsal_script(
        two_nodes.model_copy(update={"template": "base.sbatch.j2"}), 60, TEMPLATES
    )
    assert its_own.replace("srun --wait=0 --nodes", "srun --nodes") == base
    assert its_own != base
