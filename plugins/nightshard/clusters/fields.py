"""Kinds of values that a cluster's profile holds, each with the sentence on what it may be."""

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

OWNED_DIRECTIVES = frozenset(
    {
        *("array", "chdir", "error", "export", "input", "job-name", "no-requeue", "open-mode"),
        *("output", "parsable", "requeue", "signal", "test-only", "time", "time-min", "wait"),
        "wrap",
    }
)
"""``sbatch`` options that Nightshard sets itself; a profile that set them would break it."""


def remote_path(value: str) -> str:
    """Check an absolute path on a cluster; raise ValueError where it is none."""
    if not re.fullmatch(r"/[A-Za-z0-9._/+@=,-]*", value) or ".." in value.split("/"):
        raise ValueError(
            "give an absolute path on the cluster of letters, digits and ._/+@=,- only"
        )
    return value.rstrip("/") or "/"


def python_path(value: str) -> str:
    """Check the name or path of a Python."""
    return remote_path(value) if "/" in value else value


def one_line(value: str) -> str:
    """Check a single line of text."""
    if not value.isprintable():
        raise ValueError("give a single line of text")
    return value


def directive(value: str) -> str:
    """Check an option of ``sbatch`` that a profile may set."""
    match = re.fullmatch(r"--([a-z][a-z0-9-]*)(=[^\s\"'\\#]+)?", value)
    if match is None:
        raise ValueError(
            "give one sbatch option in the form --name=value, without spaces or quotes"
        )
    if match[1] in OWNED_DIRECTIVES:
        raise ValueError(f"--{match[1]} is set by Nightshard itself; remove it")
    return value


def yaml_word(value: Any) -> Any:
    """Turn what YAML read as a boolean back into its word."""
    # YAML 1.1 reads a bare yes or no as a boolean.
    return {True: "yes", False: "no"}.get(value, value) if isinstance(value, bool) else value


SlurmWord = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.,:=/@%+*&|!()\[\]-]+$")]
"""A value of an ``#SBATCH`` line: Slurm splits these at spaces and reads quotes and ``#``."""

RemotePath = Annotated[str, AfterValidator(remote_path)]
EnvName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
EnvValue = Annotated[str, Field(coerce_numbers_to_str=True), AfterValidator(one_line)]


class Section(BaseModel):
    """Base of every part of a profile: unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)
