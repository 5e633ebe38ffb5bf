"""What the worker imports, and what it tells libraries before they are imported."""

import ast
import json
import sys
from pathlib import Path

import pytest
from worker_testing import SOURCE, Run, make_requests, make_spec

from shard_worker import offline

pytestmark = pytest.mark.unit

ENGINE_FILES = {
    SOURCE / "shard_worker" / "engines" / name
    for name in ("transformers.py", "vllm.py", "vllm_nodes.py", "vllm_watch.py")
}


def imports(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            found.add(str(node.module).split(".")[0])
    return found


def test_only_the_standard_library_and_two_packages_are_imported() -> None:
    files = [file for file in SOURCE.rglob("*.py") if file not in ENGINE_FILES]
    assert len(files) > 15
    foreign = set().union(*map(imports, files)) - sys.stdlib_module_names
    assert foreign == {
        "shard_worker",
        "pyarrow",
        "jsonschema",
        "huggingface_hub",
    }  # the last by hand


def test_nothing_of_the_control_plane_is_imported() -> None:
    found = set().union(*map(imports, SOURCE.rglob("*.py")))
    assert not found & {"nightshard", "airflow"}


def test_the_engine_is_imported_offline_and_with_its_own_caches(
    run: Run, model: Path, tmp_path: Path
) -> None:
    packages = tmp_path / "packages"
    (packages / "vllm").mkdir(parents=True)
    (packages / "vllm-0.32.0.dist-info").mkdir()
    (packages / "vllm-0.32.0.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: vllm\nVersion: 0.32.0\n"
    )
    seen = tmp_path / "environment.json"
    (packages / "vllm" / "__init__.py").write_text(
        "import json, os\n"
        f"json.dump(dict(os.environ), open({str(seen)!r}, 'w'))\n"
        "raise ImportError('a fake')\n"
    )
    run.write(make_spec(model, engine={"name": "vllm"}), make_requests(1))
    code, said = run.finish(
        env={
            "PYTHONPATH": f"{SOURCE}:{packages}",
            "HF_HUB_OFFLINE": "0",
            "TMPDIR": str(tmp_path),
            "VLLM_CACHE_ROOT": "/chosen/by/the/profile",
        }
    )
    assert code == 2
    assert "cannot be imported (a fake)" in said
    environment = json.loads(seen.read_text())
    for name in (
        *("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE", "VLLM_NO_USAGE_STATS"),
        *("DO_NOT_TRACK", "HF_HUB_DISABLE_TELEMETRY"),
    ):
        assert environment[name] == "1", name
    assert environment["VLLM_CACHE_ROOT"] == "/chosen/by/the/profile"
    own = tmp_path / f"shard-worker-{Path(tmp_path).stat().st_uid}" / "rank-00000"
    assert environment["TORCHINDUCTOR_CACHE_DIR"] == str(own / "inductor")


def test_a_cache_folder_that_others_can_write_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    planted = tmp_path / f"shard-worker-{tmp_path.stat().st_uid}"
    planted.mkdir()
    planted.chmod(0o777)
    environment: dict[str, str] = {}
    offline.node_local_caches(environment, 0)
    assert not environment["VLLM_CACHE_ROOT"].startswith(str(planted) + "/")
    planted.chmod(0o700)
    environment = {}
    offline.node_local_caches(environment, 3)
    assert environment["VLLM_CACHE_ROOT"] == str(planted / "rank-00003" / "vllm")
