"""``nightshard serve``: the result pages without Airflow."""

import os

import click

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
    config = uvicorn.Config(
        serving_app(source, host, token), host=host, port=port, log_level="warning"
    )
    shown = f"[{host}]" if ":" in host else host
    click.echo(f"Nightshard's pages: http://{shown}:{port}/ (Ctrl+C ends this)")
    uvicorn.Server(config).run()
