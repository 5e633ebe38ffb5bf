"""Waiting out what passes: a login node that is down says nothing about a job."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from nightshard.clusters.errors import LoginError, TransportError

T = TypeVar("T")
Tell = Callable[[str], None]

FIRST_WAIT_S = 5.0
LONGEST_WAIT_S = 300.0


async def patiently(
    action: Callable[[], Awaitable[T]],
    tell: Tell,
    *,
    first_wait_s: float = FIRST_WAIT_S,
    longest_wait_s: float = LONGEST_WAIT_S,
) -> T:
    """Repeat an idempotent action until its outcome is known, with growing pauses.

    Args:
        action: may be repeated.
        tell: takes a sentence on each failure.
        first_wait_s: pause after the first failure; each further one is twice as long.
        longest_wait_s: bound of the pauses.

    Raises:
        LoginError: the login can never work as it is, for example because the host key changed.
    """
    wait = first_wait_s
    while True:
        try:
            return await action()
        except LoginError as error:
            if not error.failure.passing:
                raise
            problem = str(error)
        except TransportError as error:
            problem = str(error)
        tell(f"{problem.rstrip('.')}; trying again in {wait:.0f} s")
        await asyncio.sleep(wait)
        wait = min(2 * wait, longest_wait_s)
