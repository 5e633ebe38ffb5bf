"""Where a transfer goes on, and how a full disk is read."""

from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightshard.clusters.remote_disk import why_full
from nightshard.clusters.transfer import CHUNK, IN_FLIGHT, part_of, resume_at

pytestmark = pytest.mark.unit

FOLDER = PurePosixPath("/work")


@given(total=st.integers(1, 2**40), found=st.none() | st.integers(0, 2**41))
def test_a_transfer_goes_on_at_a_chunk_that_may_be_unfinished(
    total: int, found: int | None
) -> None:
    start = resume_at(found, total)
    assert start % CHUNK == 0
    assert 0 <= start < total
    if found is None or found > total:
        assert start == 0
    else:
        assert start <= max(0, found - IN_FLIGHT * CHUNK)
        assert found - start < (IN_FLIGHT + 1) * CHUNK


@given(name=st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1))
def test_a_part_lies_hidden_beside_its_file(name: str) -> None:
    path = FOLDER / name
    part = part_of(path, "d" * 64)
    assert part.parent == path.parent or name in {".", ".."}
    assert part == part_of(path, "d" * 64)
    assert part != part_of(path, "e" * 64)
    assert len(part.name.encode()) <= 255


FREE = "space /dev/sda1 100 40 60 40% /work\ninodes /dev/sda1 100 40 60 40% /work\n"
FULL = "space /dev/sda1 100 100 0 100% /work\ninodes /dev/sda1 100 40 60 40% /work\n"
NO_INODES = "space /dev/sda1 100 40 60 40% /work\ninodes /dev/sda1 100 100 0 100% /work\n"
BTRFS = "space /dev/sda1 100 40 60 40% /work\ninodes /dev/sda1 0 0 0 - /work\n"
SPACED = "space //nas/my share 100 100 0 100% /work\n"


@pytest.mark.parametrize(
    ("answer", "needed", "words"),
    [
        (FREE, 1024, None),
        (FREE, 61 * 1024, "the disk is full"),
        (FULL, 1, r"the disk is full \(0\.0 MiB are free\)"),
        (SPACED, 1, "the disk is full"),
        (NO_INODES, 1, "no room for more files"),
        (BTRFS, 1024, None),
        ("probe head: error writing: No space left on device\n" + FREE, 1, "the disk is full"),
        ("probe sh: cannot create x: Disk quota exceeded\n" + FREE, 1, "your disk quota"),
        ("probe sh: cannot create x: Permission denied\n" + FREE, 1, None),
        ("", 1, None),
    ],
)
def test_a_full_disk_is_told_from_other_troubles(
    answer: str, needed: int, words: str | None
) -> None:
    error = why_full(answer, FOLDER, needed)
    if words is None:
        assert error is None
    else:
        with pytest.raises(type(error), match=words):
            raise error
