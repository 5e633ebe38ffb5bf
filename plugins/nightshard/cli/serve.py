"""``nightshard serve``: the result pages without Airflow."""

import os
import socket

import click

from nightshard.core.errors import UserError
from nightshard.core.settings import Settings

TOKEN = "NIGHTSHARD_SERVE_TOKEN"  # noqa: S105 (the name of a variable)


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8090, show_default=True)
def serve(*, host: str, port: int) -> None:
    """Show leaderboard, runs, answers and comparisons in a browser, until Ctrl+C.

    On another address than loopback, NIGHTSHARD_SERVE_TOKEN must hold the token that visitors say.
    """
    import uvicorn

    from nightshard.web.serve import check_binding, serving_app
    from nightshard.web.source import Source

    token = os.environ.get(TOKEN) or None
    check_binding(host, token)
    settings = Settings.from_env(os.environ)
    source = Source(settings.database_url, settings.store)
    _ = source.engine  # a database that cannot be used is told now, in one sentence
    with _listening(host, port) as listening:
        config = uvicorn.Config(serving_app(source, host, token), log_level="warning")
        shown = f"[{host}]" if ":" in host else host
        bound = listening.getsockname()[1]
        click.echo(f"Nightshard's pages: http://{shown}:{bound}/ (Ctrl+C ends this)")
        uvicorn.Server(config).run(sockets=[listening])


def _listening(host: str, port: int) -> socket.socket:
    """Open a port; connections wait there until the server is up.

    Raises:
        UserError: somebody else has it, or there is no such address here.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise UserError(
            f"Port {port} of {host} cannot be opened ({error.strerror or error}): choose another "
            "with --port."
        ) from None
