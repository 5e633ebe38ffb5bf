"""What travels is complete, in the right order, and checked on arrival."""

import hashlib
import io
import subprocess
import zipfile
from pathlib import Path, PurePosixPath

import pytest

from nightshard.clusters.collecting import collect_run, tail_log
from nightshard.clusters.errors import CorruptOutputError, LoginError, LoginFailure, TransportError
from nightshard.clusters.layout import RunLayout
from nightshard.clusters.login import login_error
from nightshard.clusters.staging import stage_run, worker_archive
from nightshard.clusters.transport import CommandResult, all_of, run_checked
from nightshard.core.errors import UserError

pytestmark = pytest.mark.unit


def fine(*_: object) -> CommandResult:
    return CommandResult("", "", 0)


def source_tree(folder: Path, text: str = "print(1)") -> Path:
    package = folder / "shard_worker" / "schemas"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").write_text(text)
    (package / "spec.schema.json").write_text("{}")
    return folder


def test_the_workers_archive_depends_on_its_content_only(tmp_path: Path) -> None:
    first = worker_archive(source_tree(tmp_path / "a"))
    cache = tmp_path / "b" / "shard_worker" / "__pycache__"
    again = source_tree(tmp_path / "b")
    cache.mkdir()
    (cache / "x.pyc").write_bytes(b"x")

    assert worker_archive(again) == first
    assert worker_archive(source_tree(tmp_path / "c", "print(2)"))[0] != first[0]
    names = zipfile.ZipFile(io.BytesIO(first[1])).namelist()
    assert names == ["shard_worker/__init__.py", "shard_worker/schemas/spec.schema.json"]


def test_a_folder_without_a_worker_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="The package shard_worker is not in"):
        worker_archive(tmp_path)


async def test_the_spec_is_staged_last_and_folders_first(lab, tmp_path: Path) -> None:
    transport = lab.transport(fine)
    local = tmp_path / "input"
    local.write_bytes(b"rows")
    files = {"spec.json": b"{}", "inputs/a.parquet": local, "inputs/b.parquet": b"more"}

    await stage_run(transport, lab.layout, files, world_size=2)

    assert list(transport.files)[-1] == lab.layout.spec
    assert transport.files[lab.layout.inputs / "a.parquet"] == b"rows"
    assert transport.commands[0][0] == "sh"


def in_a_shell(words: list[str], stdin: str | None) -> CommandResult:
    done = subprocess.run(words, input=stdin, capture_output=True, text=True, check=False)
    return CommandResult(done.stdout, done.stderr, done.returncode)


async def test_every_element_finds_its_shards_folder(lab, tmp_path: Path) -> None:
    layout = RunLayout(PurePosixPath(tmp_path / "my disk"), "run-1")

    for _ in range(2):  # a second time is harmless
        await stage_run(lab.transport(in_a_shell), layout, {}, world_size=8, array_size=3)

    for rank in range(8):
        first = rank - rank % 3
        log = layout.log_pattern(1, first).replace("%5a", f"{rank - first:05d}")
        assert Path(log).parent.resolve() == Path(layout.shard(rank)).resolve()
        assert Path(log).parent.is_dir()
    assert not Path(layout.links(9)).exists()


async def test_very_many_shards_are_staged_too(lab, tmp_path: Path) -> None:
    layout = RunLayout(PurePosixPath(tmp_path), "run-1")

    await stage_run(lab.transport(in_a_shell), layout, {}, world_size=3000)

    assert len(list(Path(layout.shards).iterdir())) == 3000


async def test_folders_that_cannot_be_made_are_an_error_with_the_reason(
    lab, tmp_path: Path
) -> None:
    (tmp_path / "runs").write_text("in the way")
    layout = RunLayout(PurePosixPath(tmp_path), "run-1")

    with pytest.raises(TransportError, match=r"Making the run's folders .*Not a directory"):
        await stage_run(lab.transport(in_a_shell), layout, {}, world_size=2)


@pytest.mark.parametrize("name", ["/etc/passwd", "../other-run/spec.json"])
async def test_nothing_is_staged_outside_the_run(lab, name: str) -> None:
    with pytest.raises(ValueError, match="not a path inside the run"):
        await stage_run(lab.transport(fine), lab.layout, {name: b""}, world_size=1)


def with_outputs(lab, ranks: int = 2):
    transport = lab.transport(fine)
    for rank in range(ranks):
        content = f"answers of {rank}".encode()
        sha256 = hashlib.sha256(content).hexdigest()
        transport.files[lab.layout.output_file(rank, 4)] = content
        text = lab.manifest_text(rank, sha256=sha256)
        transport.files[lab.layout.manifest(rank, 4)] = text.encode()
    return transport


async def test_all_outputs_are_collected_in_order(lab, tmp_path: Path) -> None:
    shards = await collect_run(with_outputs(lab, 4), lab.layout, 4, tmp_path / "new")

    assert [shard.rank for shard in shards] == [0, 1, 2, 3]
    assert shards[2].output.read_bytes() == b"answers of 2"
    assert shards[2].manifest_file.exists()


async def test_what_is_here_already_is_not_fetched_again(lab, tmp_path: Path) -> None:
    transport = with_outputs(lab, 4)
    await collect_run(transport, lab.layout, 4, tmp_path)
    for rank in range(4):
        del transport.files[lab.layout.output_file(rank, 4)]

    assert len(await collect_run(transport, lab.layout, 4, tmp_path)) == 4


async def test_a_missing_manifest_is_an_error_of_its_own_class(lab, tmp_path: Path) -> None:
    with pytest.raises(CorruptOutputError, match=r"00002-of-00004\.manifest\.json is missing"):
        await collect_run(with_outputs(lab, 2), lab.layout, 4, tmp_path)


async def test_an_output_that_never_agrees_is_refused(lab, tmp_path: Path) -> None:
    transport = with_outputs(lab, 4)
    transport.files[lab.layout.output_file(1, 4)] = b"torn"

    with pytest.raises(
        CorruptOutputError, match=r"00001-of-00004\.parquet does not have the check"
    ):
        await collect_run(transport, lab.layout, 4, tmp_path)


async def test_a_log_is_shown_without_redrawn_progress_bars(lab) -> None:
    text = "Loading:  10%\rLoading: 100%\r\nsame\nsame\nlast\n\n"
    transport = lab.transport(lambda *_: CommandResult(text, "", 0))

    assert await tail_log(transport, lab.layout, 0, 1) == ["Loading: 100%", "same", "last"]
    assert await tail_log(transport, lab.layout, 0, 1, lines=1) == ["last"]


async def test_of_several_failures_one_is_raised_as_it_is() -> None:
    async def fail() -> None:
        raise TransportError("cut")

    with pytest.raises(TransportError, match="cut"):
        await all_of([fail(), fail()])


async def test_a_command_that_fails_says_what_it_was_for(lab) -> None:
    transport = lab.transport(lambda *_: CommandResult("", "disk quota\n exceeded", 1))

    with pytest.raises(TransportError, match="Making folders failed on the cluster: disk quota ex"):
        await run_checked(transport, ["mkdir", "x"], "Making folders")


def test_a_login_that_fails_without_details_still_has_a_sentence() -> None:
    error = login_error(ConnectionRefusedError(111, "refused"), None)

    assert isinstance(error, LoginError)
    assert error.failure is LoginFailure.REFUSED
    assert str(error).startswith("Connections to the cluster's login node are refused")


def test_an_error_of_another_kind_is_left_alone() -> None:
    mistake = KeyError("x")
    mine = UserError("Airflow has no connection 'x'.")

    assert login_error(mistake, None) is mistake
    assert login_error(mine, None) is mine
    assert isinstance(login_error(OSError(5, "strange"), None), TransportError)
