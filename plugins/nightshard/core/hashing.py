"""Content hashes: the same content gives the same id on every machine and Python version."""

import hashlib
import json
from typing import Any

ID_LENGTH = 32
"""Hex digits kept of a SHA-256: 128 bits, so that a collision is out of reach."""


def canonical_json(value: Any) -> str:
    """Render a JSON value in one and only one way (sorted keys, no spaces, UTF-8 kept).

    Raises:
        ValueError: a float is not finite; NaN has no JSON form and would not equal itself.
        TypeError: the value is not JSON.
    """
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def content_id(value: Any) -> str:
    """Hash a JSON value to ``ID_LENGTH`` hex digits of the SHA-256 of its canonical form."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:ID_LENGTH]
