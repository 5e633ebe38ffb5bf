"""A network file system: what one host writes, another one sees later."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(slots=True)
class _Version:
    data: bytes
    author: str
    seen_at: float


class Disk:
    """Files by absolute path, with a view a host.

    Args:
        clock: seconds.
        lag: draws how many seconds a write takes to show to the other hosts.
    """

    def __init__(self, clock: Callable[[], float], lag: Callable[[], float]) -> None:
        self._clock = clock
        self._lag = lag
        self._files: dict[str, list[_Version]] = {}

    def write(self, path: str, data: bytes, author: str) -> None:
        """Put a file in place in one step."""
        versions = self._files.setdefault(path, [])
        # Writes of one file show in their order, so an older one never comes back.
        seen_at = max([self._clock() + self._lag(), *(one.seen_at for one in versions)])
        versions.append(_Version(data, author, seen_at))
        del versions[:-4]

    def damage(self, path: str, data: bytes) -> None:
        """Change a file on the server itself: every host sees it."""
        self._files[path] = [_Version(data, "", self._clock())]

    def create(self, path: str, data: bytes, author: str) -> bool:
        """Write a file only where none exists; the server decides, whatever a host sees."""
        if path in self._files:
            return False
        self.write(path, data, author)
        return True

    def read(self, path: str, host: str) -> bytes | None:
        """Return what a host sees."""
        now = self._clock()
        for version in reversed(self._files.get(path, ())):
            if version.author == host or version.seen_at <= now:
                return version.data
        return None

    def truth(self, path: str) -> bytes | None:
        """Return what the server has."""
        versions = self._files.get(path)
        return versions[-1].data if versions else None

    def names(self, folder: str, host: str) -> list[str]:
        """Return the names in a folder that a host sees, sorted."""
        prefix = f"{folder}/"
        here = (path for path in self._files if path.startswith(prefix))
        direct = (path for path in here if "/" not in path[len(prefix) :])
        return sorted(p[len(prefix) :] for p in direct if self.read(p, host) is not None)

    def under(self, folder: str, host: str) -> list[str]:
        """Return the paths below a folder that a host sees, sorted."""
        prefix = f"{folder}/"
        return sorted(
            path
            for path in self._files
            if path.startswith(prefix) and self.read(path, host) is not None
        )
