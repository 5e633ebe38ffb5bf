"""How long a sequence may be."""

from collections.abc import Iterable

from shard_worker.errors import ConfigError


def choose_max_model_len(
    requests: Iterable[tuple[int, int]], model_limit: int, wanted: int | None
) -> int:
    """Choose the longest sequence, prompt and answer together, that an engine must hold.

    No longer than needed, because the key-value cache is sized by it.

    Args:
        requests: (prompt tokens, max_tokens) of each request.
        model_limit: what the model's configuration allows, in tokens.
        wanted: what the spec says; None chooses.

    Returns:
        Tokens, at most ``model_limit``. A request that does not fit at all does not count.

    Raises:
        ConfigError: the spec wants more than the model can.
    """
    if wanted is not None:
        if wanted > model_limit:
            raise ConfigError(
                f"spec.json: engine.max_model_len is {wanted}, but the model takes {model_limit}; "
                "lower it or leave it null."
            )
        return wanted
    needed = [prompt + answer for prompt, answer in requests if prompt < model_limit]
    return min(model_limit, max(needed, default=model_limit))


def answer_limit(prompt_tokens: int, max_tokens: int, max_model_len: int) -> int:
    """Return how many tokens an answer may have; below 1 means that the prompt is too long."""
    return min(max_tokens, max_model_len - prompt_tokens)
