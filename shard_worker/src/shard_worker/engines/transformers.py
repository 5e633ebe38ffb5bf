"""Plain ``transformers``, one batch a step: slow, and easy to look into."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from shard_worker.contract import Spec
from shard_worker.engines.base import Completion, RequestRefusedError
from shard_worker.engines.limits import answer_limit
from shard_worker.errors import ConfigError
from shard_worker.model_files import max_model_len
from shard_worker.rows import Request
from shard_worker.templating import render_prompt

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, slots=True)
class _Prompt:
    request: Request
    ids: list[int]
    limit: int


class TransformersEngine:
    """Generates token by token with the model's own ``forward``.

    Every request draws from a generator with its own seed, so a batch changes no answer but by
    rounding.
    """

    def __init__(self, spec: Spec, *, batch_size: int = 1, device: str | None = None) -> None:
        self.capacity = batch_size
        self.gpu: str | None = None
        self.compile_s = 0.0
        self.token_room: int | None = None
        self._spec = spec
        self._device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self._model: Any = None
        self._tokenizer: Any = None
        self._limit = 0
        self._waiting: deque[_Prompt] = deque()

    def load(self, requests: Sequence[Request]) -> None:
        """Load tokeniser, model and adapter.

        Raises:
            ConfigError: they cannot be loaded.
        """
        engine, path = self._spec.engine, str(self._spec.model_path)
        common = {"local_files_only": True, "trust_remote_code": engine.trust_remote_code}
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(path, **common)
            model = AutoModelForCausalLM.from_pretrained(
                path, dtype=_DTYPES.get(engine.dtype, "auto"), **common
            )
            if self._spec.adapter is not None:
                model = _with_adapter(model, str(self._spec.adapter.path))
        except (ValueError, OSError) as error:
            reason = " ".join(str(error).split())
            raise ConfigError(
                f"transformers cannot use the model {path} with this spec: {reason}; change the "
                "spec's engine settings or the model."
            ) from error
        self._model = model.to(self._device).eval()
        self._limit = engine.max_model_len or max_model_len(self._spec.model_path) or 1 << 20
        if self._device.startswith("cuda"):
            self.gpu = torch.cuda.get_device_name()

    def fits(self, request: Request) -> bool:
        """Every request fits: memory grows as it is needed."""
        return True

    def add(self, request: Request) -> None:
        """Render a request and keep it for the next batch."""
        try:
            ids = render_prompt(self._tokenizer, request.messages, self._spec.chat_template_args)
        except Exception as error:
            raise RequestRefusedError(
                f"the chat template refuses these messages: {error}"
            ) from error
        limit = answer_limit(len(ids), request.sampling.max_tokens, self._limit)
        if limit < 1:
            raise RequestRefusedError(
                f"prompt has {len(ids)} tokens, the model takes {self._limit - 1}", len(ids)
            )
        self._waiting.append(_Prompt(request, ids, limit))

    def step(self) -> list[Completion]:
        """Generate one batch to its end."""
        batch = [self._waiting.popleft() for _ in range(min(self.capacity, len(self._waiting)))]
        return [self._generate(prompt) for prompt in batch]

    def close(self) -> None:
        """Free the model."""
        self._model = None
        self._waiting.clear()
        if self._device.startswith("cuda"):
            torch.cuda.empty_cache()

    def _generate(self, prompt: _Prompt) -> Completion:
        with torch.inference_mode():
            return self._complete(prompt)

    def _complete(self, prompt: _Prompt) -> Completion:
        sampling = prompt.request.sampling
        generator = torch.Generator(self._device).manual_seed(sampling.seed)
        ends = _end_ids(self._model, self._tokenizer)
        tokens: list[int] = []
        logprobs: list[float] = []
        text, reason = "", "length"
        fed = torch.tensor([prompt.ids], device=self._device)
        cache = None
        for _ in range(prompt.limit):
            out = self._model(input_ids=fed, past_key_values=cache, use_cache=True)
            cache, logits = out.past_key_values, out.logits[0, -1].float()
            token = _draw(logits, sampling.temperature, sampling.top_p, generator)
            tokens.append(token)
            logprobs.append(float(torch.log_softmax(logits, -1)[token]))
            if token in ends:
                reason = "stop"
                break
            fed = torch.tensor([[token]], device=self._device)
            if sampling.stop:
                text = self._tokenizer.decode(tokens, skip_special_tokens=True)
                if any(stop in text for stop in sampling.stop):
                    reason = "stop"
                    break
        text = self._tokenizer.decode(tokens, skip_special_tokens=True)
        for stop in sampling.stop:
            text = text.partition(stop)[0]
        return Completion(
            request_id=prompt.request.request_id,
            text=text,
            prompt_tokens=len(prompt.ids),
            output_tokens=len(tokens),
            finish_reason=reason,
            token_logprobs=tuple(logprobs) if self._spec.engine.logprobs else None,
        )


def _end_ids(model: Any, tokenizer: Any) -> set[int]:
    named = model.generation_config.eos_token_id
    found = named if isinstance(named, list) else [named]
    return {one for one in [*found, tokenizer.eos_token_id] if one is not None}


def _draw(logits: Any, temperature: float, top_p: float, generator: Any) -> int:
    if temperature == 0:
        return int(logits.argmax())
    probabilities = torch.softmax(logits / temperature, -1)
    if top_p < 1:
        ordered, places = probabilities.sort(descending=True)
        ordered[ordered.cumsum(0) - ordered >= top_p] = 0
        return int(places[torch.multinomial(ordered, 1, generator=generator)])
    return int(torch.multinomial(probabilities, 1, generator=generator))


def _with_adapter(model: Any, path: str) -> Any:
    try:
        from peft import PeftModel
    except ImportError:
        raise ConfigError(
            "A LoRA adapter needs the package peft with the engine transformers; install it, or "
            "use the engine vllm."
        ) from None
    return PeftModel.from_pretrained(model, path).merge_and_unload()


def make(spec: Spec) -> TransformersEngine:
    """Make the engine, unloaded."""
    return TransformersEngine(spec, **spec.engine.options)
