"""The cluster as a foreground process: ``python -m nightshard.local.foreground``."""

import argparse
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from nightshard.core.errors import NightshardError
from nightshard.local.cluster import LocalCluster, SshAccess


def serve(cluster: LocalCluster, stop: threading.Event, interval: float = 5.0) -> None:
    """Bring a cluster up, check it every ``interval`` seconds until ``stop``, bring it down.

    Raises:
        UserError: this machine cannot run it.
        NightshardError: a daemon did not start.
    """
    try:
        info = cluster.up()
        print(
            f"cluster of {len(info.nodes)} nodes is up; "
            f"ssh {info.ssh_user}@{info.ssh_host}:{info.ssh_port}",
            flush=True,
        )
        cluster.wait(stop, interval=interval)
    finally:
        cluster.down()


def check(cluster: LocalCluster) -> int:
    """Tell a container's health: 0 if every daemon lives and every node answers, else 1."""
    status = cluster.status()
    if status is None:
        print("the cluster is down")
        return 1
    silent = sorted({*status.nodes} - cluster.answering_nodes(status))
    for name in (*status.missing, *silent):
        print(f"{name} does not answer")
    return 1 if status.missing or silent else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until SIGTERM or SIGINT; 0 after a clean stop, 1 with a sentence where it failed."""
    parser = argparse.ArgumentParser(prog="nightshard.local.foreground", description=__doc__)
    parser.add_argument("--root", type=Path, required=True, help="the cluster's own folder")
    parser.add_argument("--accounting", action="store_true", help="keep job records in slurmdbd")
    parser.add_argument("--bind", default="127.0.0.1", help="address that sshd listens on")
    parser.add_argument("--host", default="127.0.0.1", help="name under which clients reach sshd")
    parser.add_argument("--port", type=int, help="sshd's port; a free one by default")
    parser.add_argument("--check", action="store_true", help="only say whether all of it runs")
    options = parser.parse_args(arguments)
    if options.check:
        return check(LocalCluster(options.root))
    stop = threading.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, lambda *_: stop.set())
    access = SshAccess(bind=options.bind, host=options.host, port=options.port)
    try:
        serve(LocalCluster(options.root, options.accounting, access=access), stop)
    except NightshardError as error:
        print(f"nightshard: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
