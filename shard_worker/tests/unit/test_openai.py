"""The engine for models that are served elsewhere, against an endpoint that speaks the protocol."""

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from worker_testing import Run, make_requests, make_spec

from shard_worker.rows import Answer, answers_from_bytes

pytestmark = pytest.mark.unit

Reply = tuple[int, Any]


@dataclass
class Endpoint:
    """A server of chat completions; ``reply`` decides what a request gets."""

    reply: Callable[[dict[str, Any], int], Reply | None] = lambda body, seen: None
    bodies: list[dict[str, Any]] = field(default_factory=list)
    keys: set[str | None] = field(default_factory=set)
    seen: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)
    url: str = ""

    def answer(self, body: dict[str, Any]) -> Reply:
        text = body["messages"][-1]["content"]
        with self.lock:
            self.bodies.append(body)
            self.seen[text] += 1
        told = self.reply(body, self.seen[text])
        if told is not None:
            return told
        choice: dict[str, Any] = {
            "message": {"role": "assistant", "content": f"re: {text}"},
            "finish_reason": "stop",
        }
        if body.get("logprobs"):
            choice["logprobs"] = {"content": [{"token": "re", "logprob": -0.5}]}
        usage = {"prompt_tokens": 7, "completion_tokens": 3}
        return 200, {"choices": [choice], "usage": usage}


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    made = Endpoint()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._send(200, {"data": []})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            made.keys.add(self.headers.get("Authorization"))
            code, value = made.answer(body)
            if code:
                self._send(code, value)

        def _send(self, code: int, value: Any) -> None:
            data = json.dumps(value).encode()
            self.send_response(code)
            self.send_header("Retry-After", "0")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield made
    server.shutdown()
    server.server_close()


def write(run: Run, endpoint: Endpoint, count: int = 6, **more: Any) -> None:
    engine = {"name": "openai", "options": {"base_url": endpoint.url, **more.pop("options", {})}}
    engine |= more.pop("engine", {})
    requests = make_requests(count, stop=("END",))
    run.write(make_spec(Path("/elsewhere"), engine=engine, **more), requests)


def answers(run: Run) -> list[Answer]:
    return answers_from_bytes(run.layout.output.read_bytes())[0]


def test_each_request_is_sent_with_its_own_sampling(
    run: Run, endpoint: Endpoint, here: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_KEY", "example")
    write(
        run,
        endpoint,
        engine={"logprobs": True},
        options={"api_key_env": "A_KEY", "model": "served"},
        chat_template_args={"enable_thinking": False},
    )
    assert here() == 0
    assert [one.text for one in answers(run)] == [f"re: what is {i} plus 1" for i in range(6)]
    assert {one.token_logprobs for one in answers(run)} == {(-0.5,)}
    assert {(one.prompt_tokens, one.output_tokens) for one in answers(run)} == {(7, 3)}
    assert endpoint.keys == {"Bearer example"}
    assert {body["seed"] for body in endpoint.bodies} == {1000 + 7 * i for i in range(6)}
    body = endpoint.bodies[0]
    assert (body["model"], body["stop"], body["max_tokens"]) == ("served", ["END"], 16)
    assert body["chat_template_kwargs"] == {"enable_thinking": False}


@pytest.mark.parametrize("trouble", [429, 503, 0])
def test_a_busy_endpoint_is_asked_again(
    run: Run, endpoint: Endpoint, here: Callable[[], int], trouble: int, monkeypatch: Any
) -> None:
    monkeypatch.setattr("shard_worker.engines.openai.FIRST_PAUSE_S", 0.01)
    endpoint.reply = lambda body, seen: (trouble, {"error": "busy"}) if seen == 1 else None
    write(run, endpoint)
    assert here() == 0
    assert not any(one.error for one in answers(run))
    assert set(endpoint.seen.values()) == {2}


def test_a_refused_request_gets_the_endpoints_sentence_and_the_others_their_answers(
    run: Run, endpoint: Endpoint, here: Callable[[], int]
) -> None:
    refusal = (400, {"error": {"message": "prompt is too long"}})
    endpoint.reply = lambda body, seen: refusal if " 3 " in body["messages"][0]["content"] else None
    write(run, endpoint)
    assert here() == 0
    errors = {one.request_id[-1]: one.error for one in answers(run) if one.error}
    assert errors == {"3": "the endpoint refuses this request: 400 prompt is too long"}


def test_an_endpoint_that_stays_away_ends_the_shard_and_keeps_its_answers(
    run: Run,
    endpoint: Endpoint,
    here: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("shard_worker.engines.openai.FIRST_PAUSE_S", 0.01)
    endpoint.reply = lambda body, seen: (
        (503, {"error": "down"}) if len(endpoint.bodies) > 3 else None
    )
    write(run, endpoint, options={"concurrency": 1, "tries": 2})
    assert here() == 4
    assert "did not answer a request in 2 tries (503 down)" in capsys.readouterr().err
    endpoint.reply = lambda body, seen: None
    assert here(attempt=2) == 0
    assert [one.attempt for one in answers(run)] == [1, 1, 1, 2, 2, 2]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"base_url": "http://127.0.0.1:9/v1"}, "Nothing answers at http://127.0.0.1:9/v1"),
        ({"api_key_env": "NO_SUCH_KEY"}, "NO_SUCH_KEY is not set"),
    ],
)
def test_an_endpoint_that_cannot_be_used_is_said_in_a_sentence(
    run: Run,
    endpoint: Endpoint,
    here: Callable[[], int],
    capsys: pytest.CaptureFixture[str],
    *,
    options: dict[str, str],
    sentence: str,
) -> None:
    write(run, endpoint, options=options)
    assert here() == 2
    assert sentence in capsys.readouterr().err
    assert not endpoint.bodies


def test_a_refused_key_is_bad_configuration(
    run: Run, endpoint: Endpoint, here: Callable[[], int], capsys: pytest.CaptureFixture[str]
) -> None:
    endpoint.reply = lambda body, seen: (401, {"error": "no"})
    write(run, endpoint)
    assert here() == 2
    assert "refuses the key (401)" in capsys.readouterr().err
