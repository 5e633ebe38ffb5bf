"""Any endpoint that speaks OpenAI's chat completions, for models that are served elsewhere."""

import json
import os
import queue
import threading
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from typing import Any

from shard_worker.contract import Spec
from shard_worker.engines.base import Completion
from shard_worker.errors import ConfigError, EngineCrashError
from shard_worker.rows import Request

WAIT_S = 0.05
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0
_AGAIN = {408, 409, 425, 429, 500, 502, 503, 504, 529}
_NOT_ALLOWED = {401, 403}


class OpenAIEngine:
    """Keeps a number of requests in flight, one connection each.

    A request that the endpoint refuses (a 4xx) gets the endpoint's sentence as its error. One that
    finds it busy or gone is tried again, with pauses that double or as ``Retry-After`` says.
    """

    def __init__(
        self,
        spec: Spec,
        *,
        base_url: str,
        model: str | None = None,
        api_key_env: str | None = None,
        concurrency: int = 16,
        timeout_s: float = 3600.0,
        tries: int = 6,
    ) -> None:
        self.capacity = concurrency
        self.gpu: str | None = None
        self.compile_s = 0.0
        self.token_room: int | None = None
        self._spec = spec
        self._url = base_url.rstrip("/")
        self._model = model or spec.model_name
        self._key_name = api_key_env
        self._timeout_s = timeout_s
        self._tries = tries
        self._running = 0
        self._done: queue.SimpleQueue[Completion | Exception] = queue.SimpleQueue()
        self._closed = threading.Event()
        self._pool = ThreadPoolExecutor(concurrency, thread_name_prefix="openai")
        # An endpoint is reached directly; a node's proxy settings are for the outside.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def load(self, requests: Sequence[Request]) -> None:
        """Make sure that the endpoint is there and takes our key.

        Raises:
            ConfigError: it is not, or it does not.
        """
        if self._key_name is not None and not os.environ.get(self._key_name):
            raise ConfigError(
                f"The environment variable {self._key_name} is not set, and engine.options."
                "api_key_env says that it holds the endpoint's key; set it in the profile's "
                "worker.setup."
            )
        try:
            with self._open("/models", None, timeout=30.0):
                pass
        except urllib.error.HTTPError as error:
            self._check_allowed(error)  # some endpoints have no list of models
        except (OSError, HTTPException) as error:
            raise ConfigError(
                f"Nothing answers at {self._url} ({_words(error)}); check engine.options.base_url "
                "and that this node can reach it."
            ) from None

    def fits(self, request: Request) -> bool:
        """Every request fits; the endpoint says otherwise itself."""
        return True

    def add(self, request: Request) -> None:
        """Send a request."""
        self._running += 1
        self._pool.submit(self._answer, request)

    def step(self) -> list[Completion]:
        """Return what has come, waiting for it for a moment at most.

        Raises:
            EngineCrashError: the endpoint stayed away for all tries of a request.
        """
        finished: list[Completion] = []
        while self._running:
            try:
                came = self._done.get(timeout=0 if finished else WAIT_S)
            except queue.Empty:
                break
            self._running -= 1
            if isinstance(came, Exception):
                raise came
            finished.append(came)
        return finished

    def close(self) -> None:
        """Send nothing more; answers that are still to come are dropped."""
        self._closed.set()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _answer(self, request: Request) -> None:
        try:
            self._done.put(self._ask(request))
        except Exception as error:  # noqa: BLE001 (raised where it is awaited)
            self._done.put(error)

    def _ask(self, request: Request) -> Completion:
        body = json.dumps(self._body(request)).encode()
        pause = FIRST_PAUSE_S
        for left in reversed(range(self._tries)):
            try:
                with self._open("/chat/completions", body, timeout=self._timeout_s) as response:
                    return _completion(request, json.load(response), self._spec.engine.logprobs)
            except urllib.error.HTTPError as error:
                self._check_allowed(error)
                if error.code not in _AGAIN:
                    return _refused(request, error)
                words, wanted = _words(error), error.headers.get("Retry-After", "")
            except (OSError, HTTPException, ValueError, LookupError) as error:
                words, wanted = _words(error), ""
            if not left or self._closed.wait(float(wanted) if wanted.isdecimal() else pause):
                break
            pause = min(2 * pause, LONGEST_PAUSE_S)
        raise EngineCrashError(
            f"The endpoint {self._url} did not answer a request in {self._tries} tries ({words}); "
            "finished answers are kept."
        )

    def _open(self, path: str, body: bytes | None, timeout: float) -> Any:
        headers = {"Content-Type": "application/json"}
        if self._key_name is not None:
            headers["Authorization"] = f"Bearer {os.environ[self._key_name]}"
        return self._opener.open(
            urllib.request.Request(self._url + path, body, headers),  # noqa: S310 (the schema asks for http)
            timeout=timeout,
        )

    def _check_allowed(self, error: urllib.error.HTTPError) -> None:
        if error.code in _NOT_ALLOWED:
            raise ConfigError(
                f"The endpoint {self._url} refuses the key ({error.code}); check the variable "
                f"named by engine.options.api_key_env ({self._key_name})."
            ) from None

    def _body(self, request: Request) -> dict[str, Any]:
        sampling = request.sampling
        body: dict[str, Any] = {
            "model": self._model,
            "messages": list(request.messages),
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_tokens,
            "seed": sampling.seed,
        }
        if sampling.stop:
            body["stop"] = list(sampling.stop)
        if self._spec.engine.logprobs:
            body["logprobs"] = True
        if self._spec.chat_template_args:
            body["chat_template_kwargs"] = dict(self._spec.chat_template_args)
        return body


def _completion(request: Request, value: dict[str, Any], logprobs: bool) -> Completion:
    choice, usage = value["choices"][0], value.get("usage") or {}
    reason = choice.get("finish_reason")
    known = reason in ("stop", "length")
    chosen = (choice.get("logprobs") or {}).get("content") if logprobs else None
    return Completion(
        request_id=request.request_id,
        text=(choice["message"].get("content") or "") if known else None,
        prompt_tokens=int(usage.get("prompt_tokens") or 0),
        output_tokens=int(usage.get("completion_tokens") or 0),
        finish_reason=reason if known else "error",
        error=None if known else f"the endpoint ended this request with {reason!r}",
        token_logprobs=None if chosen is None else tuple(one["logprob"] for one in chosen),
    )


def _refused(request: Request, error: urllib.error.HTTPError) -> Completion:
    sentence = f"the endpoint refuses this request: {_words(error)}"
    return Completion(request.request_id, None, 0, 0, "error", sentence)


def _words(error: Exception) -> str:
    if not isinstance(error, urllib.error.HTTPError):
        return " ".join(str(error).split()) or type(error).__name__
    text = error.read().decode(errors="replace")
    try:
        value = json.loads(text)
        text = value["error"]["message"] if isinstance(value["error"], dict) else value["error"]
    except (ValueError, LookupError, TypeError):
        pass
    return f"{error.code} {' '.join(str(text).split())[:300]}".strip()


def make(spec: Spec) -> OpenAIEngine:
    """Make the engine from ``engine.options``."""
    return OpenAIEngine(spec, **spec.engine.options)
