"""What the worker says of a model."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from worker_testing import SOURCE

from shard_worker import CONTRACT_VERSION, __version__, cli, model_files
from shard_worker.describe import describe

pytestmark = pytest.mark.unit


def test_describe_prints_one_json_line_with_the_agreed_fields(
    model: Path, capsys: pytest.CaptureFixture[str], restored_process: None
) -> None:
    assert cli.main(["describe", "--model", str(model), "--engine", "echo"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    value = json.loads(line)
    assert value.pop("revision").startswith("sha256:")
    assert value == {
        "path": str(model),
        "chat_template_sha256": None,
        "max_model_len": 128,
        "engine": "echo",
        "engine_version": __version__,
        "worker_version": __version__,
        "contract_version": CONTRACT_VERSION,
        "adapter": None,
        "weights_bytes": 0,
    }


def test_a_model_that_is_served_elsewhere_is_known_by_its_name() -> None:
    value = describe("org/served", "openai")
    assert (value["revision"], value["path"]) == ("served as org/served", "/")
    assert value["max_model_len"] is None


def test_an_adapter_is_described_by_its_files(
    model: Path, capsys: pytest.CaptureFixture[str], restored_process: None, tmp_path: Path
) -> None:
    adapter = tmp_path / "adapter"
    words = ["describe", "--model", str(model), "--engine", "echo", "--adapter", str(adapter)]
    assert cli.main(words) == 2
    assert f"{adapter} has no adapter_config.json" in capsys.readouterr().err
    adapter.mkdir()
    revisions = set()
    for rank in (8, 16, 16):
        (adapter / "adapter_config.json").write_text(json.dumps({"r": rank}))
        assert cli.main(words) == 0
        described = json.loads(capsys.readouterr().out)["adapter"]
        assert described["path"] == str(adapter)
        revisions.add(described["revision"])
    assert len(revisions) == 2


def test_a_model_that_does_not_exist_is_named_with_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], restored_process: None
) -> None:
    assert cli.main(["describe", "--model", str(tmp_path / "nope"), "--engine", "echo"]) == 2
    said = capsys.readouterr().err
    assert "nope does not exist" in said
    assert len(said.splitlines()) == 1


def test_a_folder_that_is_no_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(Exception, match=r"has no config\.json"):
        describe(str(tmp_path), "echo")


def test_an_engine_that_is_not_installed_says_how_to_install_it(
    model: Path, capsys: pytest.CaptureFixture[str], restored_process: None
) -> None:
    assert cli.main(["describe", "--model", str(model), "--engine", "vllm"]) == 2
    assert "pip install 'shard-worker[vllm]'" in capsys.readouterr().err


def test_a_relative_path_becomes_absolute(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(model.parent)
    assert describe("model", "echo")["path"] == str(model)


def test_a_hub_snapshot_is_known_by_its_commit(tmp_path: Path) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    folder = tmp_path / "models--org--name" / "snapshots" / commit
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    assert describe(str(folder), "echo")["revision"] == commit


def test_a_folder_s_revision_follows_its_content_and_not_its_place(
    model: Path, tmp_path: Path
) -> None:
    (model / "model.safetensors").write_bytes(b"a" * 100)
    first = model_files.revision(model)
    moved = model.rename(tmp_path / "moved")
    assert model_files.revision(moved) == first
    (moved / ".cache").mkdir()
    (moved / ".cache" / "lock").write_text("x")
    assert model_files.revision(moved) == first
    (moved / "model.safetensors").write_bytes(b"a" * 99 + b"b")
    assert model_files.revision(moved) != first


@pytest.mark.parametrize(("position", "seen"), [(0, True), (-1, True), (5 << 20, False)])
def test_of_a_large_file_the_edges_are_digested(
    model: Path, monkeypatch: pytest.MonkeyPatch, position: int, seen: bool
) -> None:
    monkeypatch.setattr(model_files, "WHOLE_FILE_LIMIT", 4 << 20)
    content = bytearray(8 << 20)
    (model / "model.safetensors").write_bytes(content)
    first = model_files.revision(model)
    content[position] = 1
    (model / "model.safetensors").write_bytes(content)
    assert (model_files.revision(model) != first) is seen


def test_the_chat_template_is_found_wherever_it_lies(model: Path) -> None:
    tokenizer = model / "tokenizer_config.json"
    assert model_files.chat_template_sha256(model) is None
    tokenizer.write_text(json.dumps({"chat_template": "hello"}))
    as_text = model_files.chat_template_sha256(model)
    named = [{"name": "tools", "template": "x"}, {"name": "default", "template": "hello"}]
    tokenizer.write_text(json.dumps({"chat_template": named}))
    assert model_files.chat_template_sha256(model) == as_text
    (model / "chat_template.jinja").write_text("other")
    assert model_files.chat_template_sha256(model) not in {as_text, None}


@pytest.mark.parametrize(
    ("config", "tokenizer", "expected"),
    [
        ({"max_position_embeddings": 4096}, {}, 4096),
        ({"max_position_embeddings": 4096}, {"model_max_length": 2048}, 2048),
        ({"max_position_embeddings": 4096}, {"model_max_length": int(1e30)}, 4096),
        ({"text_config": {"max_position_embeddings": 99}}, {}, 99),
        ({"n_positions": 1024}, {}, 1024),
        (
            {"max_position_embeddings": 100, "rope_scaling": {"type": "linear", "factor": 4.0}},
            {},
            400,
        ),
        (
            {"max_position_embeddings": 100, "rope_scaling": {"rope_type": "yarn", "factor": 4.0}},
            {},
            100,
        ),
        ({}, {}, None),
    ],
)
def test_the_longest_sequence_is_read_from_the_model_s_files(
    model: Path, config: dict[str, object], tokenizer: dict[str, object], expected: int | None
) -> None:
    (model / "config.json").write_text(json.dumps(config))
    (model / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    assert model_files.max_model_len(model) == expected


def test_describe_imports_nothing_heavy(model: Path) -> None:
    code = (
        "import sys; from shard_worker.cli import main; "
        f"main(['describe', '--model', {str(model)!r}, '--engine', 'echo']); "
        "print(sorted({'pyarrow', 'vllm', 'torch', 'transformers', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_version_is_that_of_the_project_file() -> None:
    import tomllib

    project = tomllib.loads((SOURCE.parent / "pyproject.toml").read_text())["project"]
    assert project["version"] == __version__
