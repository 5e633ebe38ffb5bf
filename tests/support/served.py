"""A model that is served elsewhere: an endpoint of chat completions with one answer to all."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any

from support.loopback import serving


@contextmanager
def served_model(answer: str) -> Iterator[str]:
    """Serve on this machine.

    Yields:
        The address that ``/chat/completions`` is appended to.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._send({"data": []})

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            message = {"role": "assistant", "content": answer}
            usage = {"prompt_tokens": 5, "completion_tokens": 3}
            choices = [{"message": message, "finish_reason": "stop"}]
            self._send({"choices": choices, "usage": usage})

        def _send(self, value: Any) -> None:
            data = json.dumps(value).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    with serving(Handler) as address:
        yield f"{address}/v1"
