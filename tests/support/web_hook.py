"""A web hook on loopback, in the form of Slack's, that keeps what it is told."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

from support.loopback import serving


@dataclass
class WebHook:
    """What was posted, and where.

    Attributes:
        address: of the server.
        posted: JSON bodies, in the order of their arrival.
    """

    address: str = ""
    posted: list[Any] = field(default_factory=list)

    @property
    def connection(self) -> str:
        """An Airflow connection that leads here."""
        return json.dumps(
            {
                "conn_type": "slackwebhook",
                "host": f"{self.address}/services",
                "password": "T000/B000/example",
            }
        )


@contextmanager
def web_hook() -> Iterator[WebHook]:
    """Run a web hook."""
    hook = WebHook()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            hook.posted.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, *_: Any) -> None:
            pass

    with serving(Handler) as hook.address:
        yield hook
