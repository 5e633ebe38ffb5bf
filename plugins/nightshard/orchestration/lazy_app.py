"""What the plugin registers: an app that is built at its first request.

Every process of Airflow loads the plugin, each task's too, and only the API server needs the app.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastapi import FastAPI


class LazyApp:
    """An ASGI app in front of :func:`nightshard.orchestration.pages.build_app`'s."""

    def __init__(self) -> None:
        self._app: FastAPI | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one request."""
        if self._app is None:
            from nightshard.orchestration.pages import build_app

            self._app = build_app()
        await self._app(scope, receive, send)
