"""How every page is made: one frame, one policy for what it may do, one form of trouble."""

import secrets
from collections.abc import Callable
from typing import Any

import jinja2
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.responses import Response

from nightshard.clusters.errors import TransportError
from nightshard.core.errors import UserError

UNAUTHORIZED, NOT_FOUND, CONFLICT, UNPROCESSABLE, BAD_GATEWAY = 401, 404, 409, 422, 502

SAFE = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}

AIRFLOW = "Airflow"


class NotThereError(UserError):
    """There is no such run, shard, attempt or answer; the message says what there is."""


def wants_html(request: Request) -> bool:
    """Whether a browser asks for a page, and not a program for data."""
    return "text/html" in request.headers.get("accept", "")


def base(request: Request) -> str:
    """Return the path below which the pages are served; empty, or with a leading slash."""
    return str(request.scope.get("root_path", ""))


def airflow_prefix(request: Request) -> str:
    """Return the path under which Airflow itself is served; empty, or with a leading slash."""
    return base(request).rpartition("/")[0]


def page(request: Request, template: str, status: int = 200, **values: Any) -> HTMLResponse:
    """Render a page that may run nothing but its own script, whatever a model or a log says."""
    nonce = secrets.token_urlsafe(16)
    policy = (
        f"default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; "
        "connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'self'; "
        "frame-ancestors 'self'"
    )
    state = request.app.state
    text = _templates.get_template(template).render(
        nonce=nonce,
        base=base(request),
        airflow_home=f"{airflow_prefix(request)}/" if state.inside_airflow else None,
        **values,
    )
    headers = {**SAFE, "Content-Security-Policy": policy}
    return HTMLResponse(text, status_code=status, headers=headers)


def trouble(request: Request, status: int, sentence: str) -> Response:
    """Say what went wrong, as a page or as JSON."""
    if wants_html(request):
        return page(request, "trouble.html.j2", status, code=status, sentence=sentence)
    return JSONResponse({"detail": sentence}, status_code=status, headers=SAFE)


def bare_app(login: Callable[[Request], str], *, inside_airflow: bool) -> FastAPI:
    """Make an app without routes, whose errors are one sentence each.

    Args:
        login: address of the login page that leads back to a request.
        inside_airflow: whether there is an Airflow to link to, in whose server it runs.
    """
    # FastAPI's own pages of documentation would be open to everyone.
    app = FastAPI(title="Nightshard", docs_url=None, redoc_url=None, openapi_url=None)
    app.state.inside_airflow = inside_airflow

    @app.exception_handler(StarletteHTTPException)
    async def refused(request: Request, error: StarletteHTTPException) -> Response:
        if error.status_code == UNAUTHORIZED and wants_html(request):
            return RedirectResponse(login(request))
        return trouble(request, error.status_code, str(error.detail))

    @app.exception_handler(RequestValidationError)
    async def not_understood(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        name = str(first["loc"][-1]) if first["loc"] else "the request"
        message = f"{first['msg'][:1].lower()}{first['msg'][1:]}"
        return trouble(request, UNPROCESSABLE, f"{name} cannot be used: {message}.")

    @app.exception_handler(UserError)
    async def unusable(request: Request, error: UserError) -> Response:
        missing = isinstance(error, NotThereError)
        return trouble(request, NOT_FOUND if missing else BAD_GATEWAY, str(error))

    @app.exception_handler(TransportError)
    async def silent(request: Request, error: TransportError) -> Response:
        return trouble(request, BAD_GATEWAY, str(error))

    return app


_templates = jinja2.Environment(
    loader=jinja2.PackageLoader("nightshard.web"), autoescape=True, undefined=jinja2.StrictUndefined
)
