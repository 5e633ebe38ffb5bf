"""Running the worker's Python on the login node, and saying what it lacks."""

import re
import shlex
from collections.abc import Sequence

from nightshard.clusters.profile import ClusterProfile
from nightshard.clusters.transport import COMMAND_NOT_FOUND, CommandResult, Transport
from nightshard.core.errors import UserError

NOT_EXECUTABLE = 126
_NO_MODULE = re.compile(r"No module named '?([\w.]+)'?")
_SITE_OUTPUT = "nightshard:output"


async def run_worker_python(
    transport: Transport,
    profile: ClusterProfile,
    arguments: Sequence[str],
    *,
    worker_zip: str | None = None,
    stdin: str | None = None,
    accept: Sequence[int] = (0,),
    timeout_s: float = 120.0,
    offline: bool = True,
) -> CommandResult:
    """Run the profile's python with the profile's set-up lines and variables.

    Args:
        transport: connection to the login node.
        profile: the cluster.
        arguments: what follows ``python``; each is quoted.
        worker_zip: put on PYTHONPATH where given.
        stdin: what the program reads.
        accept: exit codes that the caller deals with itself.
        timeout_s: how long it may take.
        offline: False leaves the profile's variables out, which often switch the network off.

    Returns:
        Its output, without what the set-up lines printed.

    Raises:
        UserError: the python or a package is missing, or it ended with another exit code.
        TransportError: the connection failed.
    """
    worker = profile.worker
    environment = dict(worker.env) if offline else {}
    if worker_zip is not None:
        environment["PYTHONPATH"] = worker_zip
    exports = [f"export {name}={shlex.quote(value)}" for name, value in environment.items()]
    command = shlex.join([worker.python, *arguments])
    script = "\n".join([*worker.setup, *exports, f"echo {_SITE_OUTPUT}", f"exec {command}"])
    shell = ["bash", *(["-l"] if worker.setup else []), "-c", script]
    result = await transport.run(shell, stdin=stdin, timeout_s=timeout_s, idempotent=True)
    output = result.stdout.partition(f"{_SITE_OUTPUT}\n")[2]
    if result.exit_status not in accept:
        raise UserError(_complaint(profile, result))
    return CommandResult(output, result.stderr, result.exit_status)


def last_line(text: str) -> str:
    """Return the last line that is not empty."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")


def _complaint(profile: ClusterProfile, result: CommandResult) -> str:
    python = f"{profile.worker.python} on cluster {profile.name!r}"
    if result.exit_status in {COMMAND_NOT_FOUND, NOT_EXECUTABLE}:
        return f"The worker's python {python} cannot be run; correct worker.python in the profile."
    missing = _NO_MODULE.search(result.stderr)
    if missing is not None:
        return (
            f"The worker's python {python} lacks the package {missing[1]}; install the worker's "
            "requirements there."
        )
    detail = last_line(result.stderr) or f"exit status {result.exit_status}"
    return f"The worker's python {python} failed: {detail.rstrip('.')}."
