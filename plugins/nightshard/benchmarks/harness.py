"""Generative tasks of lm-evaluation-harness, run through our shards: ``lm-eval:gsm8k``.

Prompts, few-shot examples, filters and metrics are the task's own. A task whose first metric is not
a number from 0 to 1 for a single answer, or that needs log-likelihoods, is refused with a sentence.
"""

import functools
import hashlib
import importlib.metadata
import importlib.util
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, SupportsFloat

from nightshard.benchmarks.base import (
    GATED_DATASETS,
    METRICS,
    BenchmarkInfo,
    Problem,
    Verdict,
    chat,
)
from nightshard.core.errors import UserError
from nightshard.core.requests import Message, Sampling
from nightshard.core.settings import Settings

PREFIX = "lm-eval:"
"""Followed by the name of a task or group, and by ``@filter`` where not its first filter counts."""

HOW_TO_GET = "install lm-eval where Airflow runs: pip install 'nightshard[lm-eval]'"
_MAX_TOKENS = 2048
_EXPECTED_TOKENS = 500


@dataclass(frozen=True, slots=True)
class _Loaded:
    """One task, loaded with its documents.

    Attributes:
        name: the task's.
        file: the YAML file that defines it.
        task: lm-eval's object.
    """

    name: str
    file: Path
    task: Any


class HarnessBenchmark:
    """One task or group.

    Args:
        name: with :data:`PREFIX`.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._task, _, self._filter = name.removeprefix(PREFIX).partition("@")

    @functools.cached_property
    def info(self) -> BenchmarkInfo:
        """What it is; the task is loaded for it."""
        loaded = self._loaded
        versions = [f"{one.name}={one.task.VERSION}" for one in loaded]
        package = importlib.metadata.version("lm-eval")
        content = json.dumps([package, *versions]).encode()
        return BenchmarkInfo(
            name=self.name,
            title=f"{self.name}: a task of lm-evaluation-harness",
            version=hashlib.sha256(content).hexdigest()[:12],
            judge_version=f"lm-eval-{package}+2",
            problems=sum(len(one.task.eval_docs) for one in loaded),
            repeats=1,
            sampling=self._sampling,
            expected_tokens=_EXPECTED_TOKENS,
            metrics=METRICS,
            source="lm-evaluation-harness",
            gated=any(one.task.config.dataset_path in GATED_DATASETS for one in loaded),
        )

    def load(self, source: str | None = None) -> list[Problem]:
        """Render every document's prompt, with the task's own few-shot examples."""
        if source:
            raise UserError(f"{self.name} brings its own questions; leave its source out.")
        problems = []
        for one in self._loaded:
            file = _portable(one.file)
            for number, doc in enumerate(one.task.eval_docs):
                shots = one.task.config.num_fewshot or 0
                prompt = str(one.task.fewshot_context(doc, shots))
                gold = json.dumps({"file": file, "doc": doc}, default=str)
                subset = one.name if len(self._loaded) > 1 else None
                problems.append(Problem(f"{one.name}/{number}", prompt, gold, subset))
        return problems

    def messages(self, problem: Problem, system_prompt: str | None = None) -> list[Message]:
        """Make one message of the prompt."""
        return chat(problem.question, system_prompt)

    def warm(self, problem: Problem) -> None:
        """Import the harness and read the task, before a judgement's processor time is counted."""
        gold = json.loads(problem.gold)
        _judging_task(gold["file"], gold["doc"])

    def judge(self, problem: Problem, text: str) -> Verdict:
        """Filter and score one answer, without any thinking, as the task does."""
        from nightshard.benchmarks.judges.text import strip_thinking  # noqa: PLC0415

        gold = json.loads(problem.gold)
        doc = gold["doc"]
        task = _judging_task(gold["file"], doc)
        filtered = _filtered(task, doc, strip_thinking(text))
        chosen = self._filter or next(iter(filtered))
        if chosen not in filtered:
            raise UserError(
                f"{self.name}: the task has no filter {chosen!r}; choose {', '.join(filtered)}."
            )
        scores = task.process_results(doc, [filtered[chosen]])
        metric, value = next(iter(scores.items()))
        if not isinstance(value, SupportsFloat) or not 0 <= float(value) <= 1:
            raise UserError(
                f"{self.name}: its metric {metric} is not a number from 0 to 1 for one answer "
                f"({str(value)[:60]}); choose a task that scores each answer by itself."
            )
        # numpy has numbers of its own, which JSON does not know.
        credit = float(value)
        reason = f"{metric}={credit:g} ({chosen})"
        graded = None if credit in (0, 1) else credit
        return Verdict(credit == 1, str(filtered[chosen]), reason, graded)

    @property
    def _loaded(self) -> Sequence[_Loaded]:
        return _load(self._task)

    @property
    def _sampling(self) -> Sampling:
        kinds = {_sampling_of(one.task) for one in self._loaded}
        if len(kinds) > 1:
            raise UserError(
                f"{self.name} is a group whose tasks sample differently; ask them one by one: "
                f"{', '.join(f'{PREFIX}{one.name}' for one in self._loaded[:5])}."
            )
        return kinds.pop()


@functools.cache
def get(name: str) -> HarnessBenchmark:
    """Return a benchmark by its name with the prefix.

    Raises:
        UserError: lm-eval is not installed, or the name is empty.
    """
    if importlib.util.find_spec("lm_eval") is None:
        raise UserError(f"{name} needs lm-evaluation-harness; {HOW_TO_GET}.")
    if not name.removeprefix(PREFIX).strip():
        raise UserError(f"{name} names no task; write for example {PREFIX}gsm8k.")
    return HarnessBenchmark(name)


@functools.cache
def _load(name: str) -> Sequence[_Loaded]:
    from lm_eval.tasks import TaskManager  # noqa: PLC0415 (it and its index take seconds)

    folder = Settings.from_env(os.environ).benchmarks
    manager = TaskManager(include_path=str(folder) if folder.is_dir() else None)
    if name not in manager.task_index:
        raise UserError(
            f"lm-evaluation-harness has no task {name!r}; its list is `lm_eval ls tasks`, and your "
            "own YAML files lie in include/benchmarks."
        )
    try:
        tasks = manager.load([name])["tasks"]
    except Exception as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise UserError(
            f"{PREFIX}{name} could not be loaded ({reason}); check the network and the task."
        ) from error
    loaded = []
    for one, task in tasks.items():
        file = getattr(manager.task_index.get(one), "yaml_path", None)
        _refuse(one, task, file)
        loaded.append(_Loaded(one, Path(str(file)), task))
    return tuple(loaded)


def _refuse(name: str, task: Any, file: Path | None) -> None:
    if task.OUTPUT_TYPE != "generate_until":
        raise UserError(
            f"{PREFIX}{name} needs {task.OUTPUT_TYPE} and not a generated text, which a shard does "
            "not give; choose a generative variant of it."
        )
    if getattr(task, "MULTIMODAL", False):
        raise UserError(f"{PREFIX}{name} has images or sound, which are not supported.")
    if getattr(task, "UNSAFE_CODE", False):
        raise UserError(
            f"{PREFIX}{name} runs code that a model wrote without a sandbox; choose HumanEval or "
            "LiveCodeBench of Nightshard."
        )
    if file is None:
        raise UserError(f"{PREFIX}{name} is defined in Python; only YAML tasks are supported.")


def _sampling_of(task: Any) -> Sampling:
    settings: Mapping[str, Any] = task.config.generation_kwargs or {}
    greedy = not settings.get("do_sample", False)
    until = settings.get("until") or ()
    return Sampling(
        temperature=0.0 if greedy else float(settings.get("temperature", 1.0)),
        top_p=float(settings.get("top_p", 1.0)),
        max_tokens=int(settings.get("max_gen_toks", _MAX_TOKENS)),
        stop=(until,) if isinstance(until, str) else tuple(until),
    )


class _OneDocument:
    """A data set as a task's constructor looks at it: its columns and its first document."""

    def __init__(self, doc: Mapping[str, Any]) -> None:
        self.features = doc
        self._doc = doc

    def __getitem__(self, _: int) -> Mapping[str, Any]:
        return self._doc


def _portable(file: Path) -> str:
    """Name a task's file so that it is found where answers are judged, on whatever machine."""
    for place, folder in _places().items():
        if file.is_relative_to(folder):
            return f"{place}:{file.relative_to(folder).as_posix()}"
    return str(file)


def _found(name: str) -> Path:
    place, _, rest = name.partition(":")
    folder = _places().get(place)
    return folder / rest if folder is not None else Path(name)


def _places() -> dict[str, Path]:
    spec = importlib.util.find_spec("lm_eval")
    places = {"own": Settings.from_env(os.environ).benchmarks}
    if spec is not None and spec.origin is not None:
        places["lm-eval"] = Path(spec.origin).parent / "tasks"
    return places


_JUDGES: dict[str, Any] = {}


def _judging_task(file: str, doc: Mapping[str, Any]) -> Any:
    """Return a task with its filters and metrics, made without fetching its documents."""
    if file not in _JUDGES:
        from lm_eval.api.task import ConfigurableTask  # noqa: PLC0415
        from lm_eval.tasks._yaml_loader import load_yaml  # noqa: PLC0415

        class Judging(ConfigurableTask):  # type: ignore[misc]
            def download(self, dataset_kwargs: Any = None, **_: Any) -> None:
                self.dataset: dict[str, Any] = {}

            @property
            def eval_docs(self) -> Any:
                return _OneDocument(doc)

            def fewshot_docs(self) -> None:
                return None

        config = load_yaml(str(_found(file)))
        _JUDGES[file] = Judging(config={**config, "task": config.get("task", file)})
    return _JUDGES[file]


def _filtered(task: Any, doc: Mapping[str, Any], text: str) -> dict[str, Any]:
    """Return what each of the task's filters makes of an answer."""
    from lm_eval.api.instance import Instance  # noqa: PLC0415

    instance = Instance("generate_until", doc=dict(doc), arguments=("", {}), idx=0)
    instance.resps = [text]
    for one in task._filters:
        one.apply([instance])
    filtered: dict[str, Any] = instance.filtered_resps
    return filtered
