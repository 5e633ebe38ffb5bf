"""vLLM, offline, one step at a time."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vllm import EngineArgs, SamplingParams
from vllm.lora.request import LoRARequest
from vllm.platforms import current_platform
from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine.llm_engine import LLMEngine

from shard_worker.contract import Spec
from shard_worker.engines.base import Completion, RequestRefusedError
from shard_worker.engines.limits import answer_limit, choose_max_model_len
from shard_worker.engines.vllm_watch import CoreWatch
from shard_worker.errors import ConfigError
from shard_worker.model_files import adapter_rank
from shard_worker.nodes import Nodes
from shard_worker.rows import Request
from shard_worker.templating import render_prompt

RESERVE_SHARE = 8
RESERVE_LEAST = 8
"""Requests held beyond those that run: an eighth, so that a finished one is followed at once, and
few, because no other shard can take them and stopping abandons them."""

CPU_CACHE_GIB = "2"
"""Key-value cache without a GPU, unless the profile sets ``VLLM_CPU_KVCACHE_SPACE``."""


@dataclass(frozen=True, slots=True)
class _Prompt:
    ids: list[int]
    error: str | None = None


class VllmEngine:
    """Runs a spec's model in vLLM's own ``LLMEngine``.

    Prompts are rendered before the model is loaded, because the longest of them decides how long a
    sequence the key-value cache must hold.
    """

    def __init__(self, spec: Spec) -> None:
        self.capacity = 1
        self.gpu: str | None = None
        self.compile_s = 0.0
        self.token_room: int | None = None
        self._spec = spec
        self._engine: LLMEngine | None = None
        self._watch: CoreWatch | None = None
        self._prompts: dict[str, _Prompt] = {}
        self._tokenizer: Any = None
        self._lora = _lora(spec)
        self._nodes = Nodes.from_env(os.environ)
        self._max_model_len = 0
        self._limit = 0

    def load(self, requests: Sequence[Request]) -> None:
        """Render every prompt, choose the sequence length, load the model.

        Raises:
            ConfigError: vLLM refuses the settings or the model's files.
        """
        self._tokenizer, limit = self._read_model()
        self._prompts = {r.request_id: self._render(r) for r in requests}
        rendered = [
            (len(prompt.ids), request.sampling.max_tokens)
            for request in requests
            if (prompt := self._prompts[request.request_id]).error is None
        ]
        self._limit = self._spec.engine.max_model_len or limit
        self._max_model_len = choose_max_model_len(rendered, limit, self._spec.engine.max_model_len)
        if current_platform.is_cpu():
            # vLLM would take nearly all of the machine's memory, which shards here share.
            os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", CPU_CACHE_GIB)
        if requests and not any(length < self._max_model_len for length, _ in rendered):
            return  # every request will be refused; a model would be loaded for nothing
        try:
            arguments = self._arguments(max_model_len=self._max_model_len)
            if self._nodes is not None:
                arguments = self._nodes.start(arguments)
            config = EngineArgs(**arguments).create_engine_config()
        except (ValueError, OSError) as error:
            raise _refused(self._spec, error) from error
        self._engine = LLMEngine.from_vllm_config(config, disable_log_stats=True)
        self._watch = CoreWatch(self._engine.engine_core)
        self.compile_s = max(self._engine.collective_rpc("compile_seconds"))
        running = config.scheduler_config.max_num_seqs
        self.capacity = running + max(RESERVE_LEAST, running // RESERVE_SHARE)
        if blocks := config.cache_config.num_gpu_blocks:
            self.token_room = blocks * config.cache_config.block_size
        if current_platform.is_cuda_alike():
            # By NVML, not torch.cuda, which would take GPU memory for this process.
            self.gpu = current_platform.get_device_name(0)

    def fits(self, request: Request) -> bool:
        """Tell whether prompt and answer go into the sequence length that was chosen."""
        if self._engine is None or self._max_model_len >= self._limit:
            return self._engine is not None
        prompt = self._prompt(request)
        needed = len(prompt.ids) + request.sampling.max_tokens
        return prompt.error is not None or needed <= self._max_model_len

    def add(self, request: Request) -> None:
        """Give a request to vLLM, its answer cut to what the model has room for."""
        prompt = self._prompt(request)
        del self._prompts[request.request_id]
        if prompt.error is not None:
            raise RequestRefusedError(prompt.error)
        length = len(prompt.ids)
        sampling = request.sampling
        limit = answer_limit(length, sampling.max_tokens, self._max_model_len)
        if limit < 1:
            raise RequestRefusedError(
                f"prompt has {length} tokens, the model takes {self._limit - 1}", length
            )
        try:
            parameters = SamplingParams(
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                max_tokens=limit,
                seed=sampling.seed,
                stop=list(sampling.stop),
                output_kind=RequestOutputKind.FINAL_ONLY,
                logprobs=0 if self._spec.engine.logprobs else None,
            )
            self._loaded().add_request(
                request.request_id,
                {"prompt_token_ids": prompt.ids},
                parameters,
                lora_request=self._lora,
            )
        except ValueError as error:  # vLLM's own check of this one request
            raise RequestRefusedError(f"vLLM refuses this request: {error}", length) from error

    def step(self) -> list[Completion]:
        """Run one scheduler step."""
        engine = self._engine
        if engine is None or not engine.has_unfinished_requests():
            return []
        return [_completion(output) for output in engine.step() if output.finished]

    def close(self) -> None:
        """End vLLM's processes before the interpreter goes, which they would report as a crash."""
        if self._watch is not None:
            self._watch.end()
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.engine_core.shutdown()
            if self._nodes is not None:
                self._nodes.end()

    def _loaded(self) -> LLMEngine:
        if self._engine is None:
            raise RuntimeError("the engine is not loaded")
        return self._engine

    def _arguments(self, **more: Any) -> dict[str, Any]:
        engine = self._spec.engine
        if engine.gpu_memory_utilization is not None:
            more["gpu_memory_utilization"] = engine.gpu_memory_utilization
        if self._spec.adapter is not None:
            more |= {"enable_lora": True, "max_lora_rank": adapter_rank(self._spec.adapter.path)}
        if current_platform.is_cpu():
            # Between two chunks of a seeded request's prompt vLLM winds the generator back, which
            # a CPU generator cannot do: the engine dies with "does not use offset".
            more["enable_chunked_prefill"] = False
        return {
            "model": str(self._spec.model_path),
            "dtype": engine.dtype,
            "tensor_parallel_size": engine.tensor_parallel,
            "enforce_eager": engine.enforce_eager,
            "trust_remote_code": engine.trust_remote_code,
            "disable_log_stats": True,
            "seed": 0,
            "worker_extension_cls": "shard_worker.engines.vllm_timing.CompileTime",
            **engine.options,
            **more,
        }

    def _read_model(self) -> tuple[Any, int]:
        """Return the tokeniser and the longest sequence that vLLM allows for this model."""
        from transformers import AutoTokenizer

        path = str(self._spec.model_path)
        try:
            tokenizer = AutoTokenizer.from_pretrained(
                path,
                local_files_only=True,
                trust_remote_code=self._spec.engine.trust_remote_code,
            )
            limit = EngineArgs(**self._arguments()).create_model_config().max_model_len
        except (ValueError, OSError) as error:
            raise _refused(self._spec, error) from error
        return tokenizer, int(limit)

    def _prompt(self, request: Request) -> _Prompt:
        known = self._prompts.get(request.request_id)
        if known is None:
            known = self._prompts[request.request_id] = self._render(request)
        return known

    def _render(self, request: Request) -> _Prompt:
        try:
            ids = render_prompt(self._tokenizer, request.messages, self._spec.chat_template_args)
        except Exception as error:  # noqa: BLE001 (a template may raise anything)
            return _Prompt([], f"the chat template refuses these messages: {error}")
        return _Prompt(ids)


def _completion(output: Any) -> Completion:
    answer = output.outputs[0]
    reason = str(answer.finish_reason)
    failed = reason not in ("stop", "length")
    return Completion(
        request_id=output.request_id,
        text=None if failed else answer.text,
        prompt_tokens=len(output.prompt_token_ids),
        output_tokens=len(answer.token_ids),
        finish_reason="error" if failed else reason,
        error=f"vLLM ended this request with {reason!r}" if failed else None,
        token_logprobs=_logprobs(answer),
    )


def _logprobs(answer: Any) -> tuple[float, ...] | None:
    if answer.logprobs is None:
        return None
    return tuple(
        float(at[token].logprob)
        for token, at in zip(answer.token_ids, answer.logprobs, strict=True)
    )


def _lora(spec: Spec) -> LoRARequest | None:
    if spec.adapter is None:
        return None
    return LoRARequest(spec.adapter.name, 1, str(spec.adapter.path))


def _refused(spec: Spec, error: Exception) -> ConfigError:
    reason = " ".join(str(error).split())
    return ConfigError(
        f"vLLM cannot use the model {spec.model_path} with this spec: {reason}; change the spec's "
        "engine settings or the model."
    )


def make(spec: Spec) -> VllmEngine:
    """Make the engine, unloaded."""
    return VllmEngine(spec)
