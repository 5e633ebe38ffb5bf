"""Names of the files in a run folder."""

import re
from dataclasses import dataclass
from pathlib import Path

_INPUT = re.compile(r"shard-\d{5}-of-(?P<size>\d{5})\.parquet")


@dataclass(frozen=True, slots=True)
class ShardLayout:
    """Where one shard's files are.

    Attributes:
        run_dir: the run folder on the shared file system, absolute.
        rank: 0-based number of the shard.
        world_size: number of shards of the run.
    """

    run_dir: Path
    rank: int
    world_size: int

    @property
    def name(self) -> str:
        """For example ``shard-00003-of-00008``."""
        return f"shard-{self.rank:05d}-of-{self.world_size:05d}"

    @property
    def spec(self) -> Path:
        """The run's ``spec.json``."""
        return self.run_dir / "spec.json"

    @property
    def inputs(self) -> Path:
        """This shard's requests."""
        return self.run_dir / "inputs" / f"{self.name}.parquet"

    @property
    def folder(self) -> Path:
        """This shard's own folder."""
        return self.run_dir / "shards" / f"{self.rank:05d}"

    @property
    def parts(self) -> Path:
        """Folder of the answers that are finished so far."""
        return self.folder / "parts"

    @property
    def progress(self) -> Path:
        """This shard's ``progress.json``."""
        return self.folder / "progress.json"

    @property
    def output(self) -> Path:
        """All answers of this shard."""
        return self.run_dir / "outputs" / f"{self.name}.parquet"

    @property
    def manifest(self) -> Path:
        """Written last: what makes the output count."""
        return self.run_dir / "outputs" / f"{self.name}.manifest.json"

    @property
    def blocks(self) -> Path:
        """Folder of the claims on blocks, one for each number of shards."""
        return self.run_dir / "blocks" / f"of-{self.world_size:05d}"

    @property
    def relieved(self) -> Path:
        """Marker: some shard was finished by others before its job began."""
        return self.run_dir / "relieved"

    def claim(self, attempt: int) -> Path:
        """Return the claim file of an attempt."""
        return self.folder / f"claim-{attempt}"

    def record(self, attempt: int) -> Path:
        """Return the file in which the orchestrator writes down how an attempt ended."""
        return self.folder / f"attempt-{attempt}.json"

    def log(self, attempt: int) -> Path:
        """Return the file into which the batch script sends this attempt's output."""
        return self.folder / f"attempt-{attempt}.log"


def sizes(layout: ShardLayout) -> set[int]:
    """Return into how many shards a run has been cut, now and before."""
    matches = (_INPUT.fullmatch(path.name) for path in layout.inputs.parent.iterdir())
    return {int(match["size"]) for match in matches if match}
