"""An event loop whose clock jumps to the next thing to do, so that hours cost milliseconds."""

import asyncio
from asyncio import base_events
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class DeadlockError(AssertionError):
    """Everybody waits and nothing is due."""


class _Waiting:
    """Stands where an event loop has its selector: waiting moves the clock."""

    def __init__(self) -> None:
        self.now = 0.0

    def select(self, timeout: float | None) -> list[Any]:
        if timeout is None:
            raise DeadlockError("nothing is due, and somebody still waits")
        self.now += max(timeout, 0.0)
        return []

    def close(self) -> None:
        pass


class VirtualLoop(base_events.BaseEventLoop):
    """Runs callbacks in the order of their due times; nothing outside it can happen."""

    def __init__(self) -> None:
        super().__init__()
        self._selector = _Waiting()

    def time(self) -> float:
        """Return virtual seconds since the loop was made."""
        return self._selector.now

    def _process_events(self, event_list: list[Any]) -> None:
        pass

    def _write_to_self(self) -> None:
        pass

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Callable[..., T], *args: Any
    ) -> "asyncio.Future[T]":
        """Run a thread's work at once, in the loop: threads would make the order random."""
        done: asyncio.Future[T] = self.create_future()
        try:
            done.set_result(func(*args))
        except Exception as error:  # noqa: BLE001 (handed on)
            done.set_exception(error)
        return done


def run_virtually(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on a :class:`VirtualLoop`; its clock begins at 0."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)
