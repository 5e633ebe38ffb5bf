"""The result pages alone, without Airflow: on loopback for whoever is there, else for a token."""

import ipaddress
import secrets
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Form, HTTPException, Request
from fastapi.responses import HTMLResponse, RedirectResponse
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import Response

from nightshard.core.errors import UserError
from nightshard.web.api import api_router
from nightshard.web.pages import UNAUTHORIZED, bare_app, base, page
from nightshard.web.results import results_router
from nightshard.web.source import Source

COOKIE = "nightshard_token"
MIN_TOKEN = 16


def check_binding(host: str, token: str | None) -> None:
    """Refuse to show results to a network without a token.

    Raises:
        UserError: the host is not loopback and there is no token, or it can be guessed.
    """
    if token is not None and len(token) < MIN_TOKEN:
        raise UserError(f"The token is shorter than {MIN_TOKEN} characters; choose a longer one.")
    if token is None and not _loopback(host):
        raise UserError(
            f"On {host} everyone on the network could read the results; set "
            "NIGHTSHARD_SERVE_TOKEN to a token of your choice, or leave --host out."
        )


def serving_app(source: Source, host: str, token: str | None) -> FastAPI:
    """Build the app.

    Args:
        source: where it reads.
        host: what it is bound to; see :func:`check_binding`.
        token: what it asks for; None on loopback.
    """
    app = bare_app(lambda request: f"{base(request)}/login", inside_airflow=False)
    if _loopback(host):  # a page elsewhere could otherwise have its own name lead here
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=["localhost", "127.0.0.1", "::1"])
    guard = [Depends(_asks_for(token))] if token is not None else []
    app.include_router(api_router(source, guard))
    app.include_router(results_router(source, guard))
    if token is not None:
        _add_login(app, token)
    return app


def _loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _asks_for(token: str) -> Callable[[Request], None]:
    def check(request: Request) -> None:
        said = request.headers.get("authorization", "").removeprefix("Bearer ")
        given = said or request.cookies.get(COOKIE, "")
        if not secrets.compare_digest(given.encode(), token.encode()):
            raise HTTPException(UNAUTHORIZED, "Say the token: Authorization: Bearer <token>.")

    return check


def _add_login(app: FastAPI, token: str) -> None:
    @app.get("/login", include_in_schema=False)
    def login(request: Request) -> HTMLResponse:
        return page(request, "login.html.j2", wrong=False)

    @app.post("/login", include_in_schema=False, response_model=None)
    def log_in(request: Request, given: Annotated[str, Form(alias="token")] = "") -> Response:
        if not secrets.compare_digest(given.strip().encode(), token.encode()):
            return page(request, "login.html.j2", UNAUTHORIZED, wrong=True)
        answer = RedirectResponse(f"{base(request)}/", status_code=303)
        options: dict[str, Any] = {"httponly": True, "samesite": "strict", "path": "/"}
        answer.set_cookie(COOKIE, token, secure=request.url.scheme == "https", **options)
        return answer
