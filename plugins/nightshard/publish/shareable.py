"""What of a run is nobody's business: where its files lie and which hosts it uses. Pure."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

from nightshard.core.run_params import model_label
from nightshard.results.records import RunRecord


def shareable(run: RunRecord) -> RunRecord:
    """Return a run without paths and addresses of a group's own machines.

    A model in a folder is told by the folder's name, a file of questions by its own, and addresses
    among the engine's settings likewise.
    """
    params = dict(run.params or {})
    for name in ("model", "adapter"):
        if params.get(name):
            params[name] = model_label(str(params[name]))
    if params.get("source"):
        params["source"] = {name: _last(str(file)) for name, file in params["source"].items()}
    content = None if run.fingerprint_content is None else _told(run.fingerprint_content)
    return replace(
        run,
        model=replace(run.model, path=_last(run.model.path)),
        params=params or None,
        fingerprint_content=content,
        spec=None,
        answers_url=None,
    )


def _told(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _told(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_told(one) for one in value]
    if isinstance(value, str) and (value.startswith(("/", "~")) or "://" in value):
        return _last(value)
    return value


def _last(path: str) -> str:
    return PurePosixPath(path.rstrip("/")).name or "-"
