"""A login that a person made with OpenSSH and holds open as a ControlMaster socket."""

import asyncio
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path

from nightshard.clusters.errors import LoginError, LoginFailure
from nightshard.clusters.login_errors import Endpoint, sentence
from nightshard.core.errors import UserError

CHECK_TIMEOUT_S = 10.0
KEEPALIVE_OPTIONS = ("-o", "ServerAliveInterval=30", "-o", "ServerAliveCountMax=3")


@dataclass(frozen=True, slots=True)
class HeldSocket:
    """Where the socket is, and whose login it holds.

    Attributes:
        path: absolute path of the ``ControlPath`` socket, without OpenSSH's ``%`` tokens.
        endpoint: the host at its other end; only for sentences, the socket leads where it leads.
    """

    path: Path
    endpoint: Endpoint

    def __post_init__(self) -> None:
        if not self.path.is_absolute() or "%" in str(self.path):
            raise UserError(
                f"control_path {str(self.path)!r} is no absolute path without %; give the path of "
                "the socket as it is on disk."
            )

    @property
    def destination(self) -> str:
        """What names the host to ``ssh``."""
        return self.endpoint.host

    def arguments(self, *more: str) -> list[str]:
        """Return an ``ssh`` command line over this socket and over nothing else.

        ``ssh`` logs in afresh where a socket does not answer; a ProxyCommand that fails takes that
        way from it. The user's own configuration is not read, since it could add another way.
        """
        program = shutil.which("ssh")
        if program is None:
            failure = LoginFailure.NO_SSH_PROGRAM
            raise LoginError(failure, sentence(failure, self.endpoint))
        options = ("ControlMaster=no", "BatchMode=yes", "StrictHostKeyChecking=yes")
        command = [program, "-F", "none", "-S", str(self.path), "-T", "-x", "-a"]
        for option in (*options, "ProxyCommand=false", "LogLevel=ERROR"):
            command += ["-o", option]
        return [*command, *more]

    def login_line(self) -> str:
        """Return the command with which a person makes the socket."""
        words = ["ssh", "-M", "-S", str(self.path), "-N", "-f", *KEEPALIVE_OPTIONS]
        if self.endpoint.port != 22:  # noqa: PLR2004 (the SSH port)
            words += ["-p", str(self.endpoint.port)]
        user = f"{self.endpoint.username}@" if self.endpoint.username else ""
        return shlex.join([*words, f"{user}{self.endpoint.host}"])

    async def check(self) -> None:
        """Ask the ``ssh`` that holds the login whether it is there.

        Raises:
            LoginError: it is not; the sentence says how to log in again.
        """
        process = await asyncio.create_subprocess_exec(
            *self.arguments("-O", "check", "--", self.destination),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            async with asyncio.timeout(CHECK_TIMEOUT_S):
                status = await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
            status = 255
        if status != 0:
            raise self.gone()

    def gone(self) -> LoginError:
        """Return the error for a socket that nobody answers at."""
        failure = LoginFailure.SOCKET_GONE
        return LoginError(failure, sentence(failure, self.endpoint, self.login_line()))
