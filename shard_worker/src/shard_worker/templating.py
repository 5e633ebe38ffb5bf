"""From a chat to token ids."""

from collections.abc import Mapping, Sequence
from typing import Any

from shard_worker.rows import Message


def render_prompt(
    tokenizer: Any, messages: Sequence[Message], template_args: Mapping[str, Any]
) -> list[int]:
    """Render a chat to the token ids that go into the model.

    The template and the tokeniser run in one call. Rendering to text first and tokenising that
    afterwards would put a second BOS token before the one that many templates write themselves.

    A model without a chat template (a base model) gets the contents joined by blank lines, with the
    tokeniser's own special tokens.

    Args:
        tokenizer: a ``transformers`` tokeniser.
        messages: the chat, system prompt included.
        template_args: variables for the template, for example ``enable_thinking``.

    Returns:
        Token ids.

    Raises:
        Exception: whatever the template raises, for example for a role that it does not know.
    """
    if not tokenizer.chat_template:
        text = "\n\n".join(message["content"] for message in messages)
        return _ids(tokenizer(text))
    return _ids(
        tokenizer.apply_chat_template(
            [dict(message) for message in messages],
            tokenize=True,
            add_generation_prompt=True,
            return_dict=False,
            **template_args,
        )
    )


def _ids(encoded: Any) -> list[int]:
    # A list or a BatchEncoding, by version of transformers and kind of tokeniser.
    ids = (
        encoded["input_ids"]
        if isinstance(encoded, Mapping) or hasattr(encoded, "keys")
        else encoded
    )
    if len(ids) > 0 and isinstance(ids[0], list):
        ids = ids[0]
    return [int(token) for token in ids]
