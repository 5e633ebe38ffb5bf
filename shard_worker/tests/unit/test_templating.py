"""From a chat to token ids, and how long a sequence may be."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shard_worker.engines.limits import answer_limit, choose_max_model_len
from shard_worker.errors import ConfigError
from shard_worker.rows import Message
from shard_worker.templating import render_prompt

pytestmark = pytest.mark.unit

CHAT = [Message(role="user", content="hi"), Message(role="assistant", content="yes")]


class Encoding:
    """Has keys, as transformers' BatchEncoding has, and is no dict."""

    def __init__(self, ids: Any) -> None:
        self._ids = ids

    def keys(self) -> list[str]:
        return ["input_ids"]

    def __getitem__(self, key: str) -> Any:
        assert key == "input_ids"
        return self._ids


class Tokenizer:
    chat_template: str | None = "…"

    def __init__(self, result: Any) -> None:
        self.result = result
        self.called: dict[str, Any] = {}

    def apply_chat_template(self, messages: Any, **options: Any) -> Any:
        self.called = {"messages": messages, **options}
        return self.result

    def __call__(self, text: str) -> Any:
        self.called = {"text": text}
        return self.result


@pytest.mark.parametrize(
    "result",
    [[1, 2, 3], [[1, 2, 3]], {"input_ids": [1, 2, 3]}, Encoding([1, 2, 3]), Encoding([[1, 2, 3]])],
)
def test_every_form_in_which_transformers_returns_ids_is_understood(result: Any) -> None:
    assert render_prompt(Tokenizer(result), CHAT, {}) == [1, 2, 3]


def test_the_template_gets_the_chat_and_the_spec_s_arguments() -> None:
    tokenizer = Tokenizer([1])
    render_prompt(tokenizer, CHAT, {"enable_thinking": False})
    assert tokenizer.called["messages"] == CHAT
    assert tokenizer.called["tokenize"] is True
    assert tokenizer.called["add_generation_prompt"] is True
    assert tokenizer.called["enable_thinking"] is False


def test_a_base_model_gets_the_plain_text() -> None:
    tokenizer = Tokenizer({"input_ids": [5]})
    tokenizer.chat_template = None
    assert render_prompt(tokenizer, CHAT, {}) == [5]
    assert tokenizer.called == {"text": "hi\n\nyes"}


requests = st.lists(st.tuples(st.integers(1, 300), st.integers(1, 300)))


@given(requests=requests, limit=st.integers(2, 200))
def test_the_sequence_is_as_long_as_needed_and_never_longer_than_the_model(
    requests: list[tuple[int, int]], limit: int
) -> None:
    chosen = choose_max_model_len(requests, limit, None)
    assert chosen <= limit
    for prompt, answer in requests:
        room = answer_limit(prompt, answer, chosen)
        if prompt < limit:
            assert room == min(answer, limit - prompt)
        else:
            assert room < 1


def test_a_wanted_length_is_taken_unless_the_model_is_shorter() -> None:
    assert choose_max_model_len([(1, 1)], 100, 50) == 50
    with pytest.raises(ConfigError, match="max_model_len is 200, but the model takes 100"):
        choose_max_model_len([(1, 1)], 100, 200)
