"""Which models go: unused ones, the longest unused first, and never one of the last two days."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightshard.clusters.model_cleaning import ALWAYS_KEPT_DAYS, StoredModel, may_go

pytestmark = pytest.mark.unit

DAY = 86400.0
NOW = 1000 * DAY


def model(name: str, days: float, size: int = 10) -> StoredModel:
    return StoredModel(f"/models/{name}", size, NOW - days * DAY)


def names(models: list[StoredModel]) -> list[str]:
    return [one.path.removeprefix("/models/") for one in models]


def test_what_was_unused_for_long_goes() -> None:
    models = [model("new", 1), model("old", 40), model("older", 50)]
    assert names(may_go(models, NOW, older_than_days=30, keep_bytes=None)) == ["older", "old"]


def test_more_goes_until_the_rest_is_small_enough() -> None:
    models = [model("a", 20), model("b", 10), model("c", 5)]
    assert names(may_go(models, NOW, older_than_days=30, keep_bytes=15)) == ["a", "b"]
    assert names(may_go(models, NOW, older_than_days=30, keep_bytes=30)) == []


@given(
    st.lists(st.builds(model, st.text("abc"), st.floats(0, 100), st.integers(1, 50))),
    st.floats(0, 60),
    st.none() | st.integers(0, 500),
)
def test_never_one_that_a_run_may_use(
    models: list[StoredModel], older: float, keep: int | None
) -> None:
    going = may_go(models, NOW, older_than_days=older, keep_bytes=keep)
    assert all((NOW - one.used_at) / DAY >= ALWAYS_KEPT_DAYS for one in going)
    assert [one.used_at for one in going] == sorted(one.used_at for one in going)
    if keep is not None:
        left = sum(one.size for one in models) - sum(one.size for one in going)
        spared = [one for one in models if (NOW - one.used_at) / DAY < ALWAYS_KEPT_DAYS]
        assert left <= keep or left == sum(one.size for one in spared)
