"""The model of time and cost by shards, on Evalchemy's published timings and on made ones."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightshard.core.errors import UserError
from nightshard.core.scaling import (
    OPTIMISE,
    Observation,
    Pace,
    choose_shards,
    fit,
    held_out_errors,
)

pytestmark = pytest.mark.unit

MINUTE, HOUR = 60.0, 3600.0

# OpenThinker-7B on the six tasks; wall time in minutes, GPU hours.
CAPELLA = ((1, 318, 5.3), (8, 63, 5.9), (32, 21, 8.2), (128, 15, 20.9))
LEONARDO = ((1, 614, 10.2), (8, 110, 10.6), (32, 37, 13.9), (128, 19, 32.5))


def published(timings: tuple[tuple[int, float, float], ...]) -> list[Observation]:
    return [Observation(n, 1.0, wall * MINUTE, gpu * HOUR) for n, wall, gpu in timings]


@pytest.mark.parametrize("timings", [CAPELLA, LEONARDO], ids=["capella", "leonardo"])
def test_the_published_timings_fit(timings: tuple[tuple[int, float, float], ...]) -> None:
    observations = published(timings)
    pace = fit(observations)
    for one in observations:
        assert pace.busy(1.0, one.shards) == pytest.approx(one.busy_seconds, rel=0.12)
        assert pace.wall(1.0, one.shards) == pytest.approx(one.wall_seconds, rel=0.30)


@pytest.mark.parametrize("timings", [CAPELLA, LEONARDO], ids=["capella", "leonardo"])
def test_a_count_that_was_left_out_is_predicted(
    timings: tuple[tuple[int, float, float], ...],
) -> None:
    errors = held_out_errors(published(timings))
    assert set(errors) == {1, 8, 32, 128}
    between = {count: errors[count] for count in (8, 32)}
    assert max(map(abs, between.values())) < 0.35


def test_on_the_published_timings_the_recommendation_is_theirs() -> None:
    """Evalchemy recommends 8 shards, and 128 for those in a hurry."""
    pace = fit(published(CAPELLA))
    assert 4 <= choose_shards(pace, 1.0, "efficiency", 128) <= 12
    assert 16 <= choose_shards(pace, 1.0, "balanced", 128) <= 64
    assert choose_shards(pace, 1.0, "rush", 128) > 64


seconds = st.floats(1.0, 1e4)


@given(seconds, seconds, st.floats(0.0, 1e3), st.sets(st.integers(1, 64), min_size=3))
def test_what_the_model_says_is_found_again(
    startup: float, work: float, tail: float, counts: set[int]
) -> None:
    truth = Pace(startup, work, tail, 1)
    seen = [Observation(n, 1.0, truth.wall(1.0, n), truth.busy(1.0, n)) for n in counts]
    pace = fit(seen)
    for count in (*counts, 7):
        assert pace.wall(1.0, count) == pytest.approx(truth.wall(1.0, count), rel=1e-3)
    assert all(abs(error) < 1e-3 for error in held_out_errors(seen).values())


@given(seconds, seconds, st.floats(0.0, 1e3), st.integers(1, 200), st.sampled_from(OPTIMISE))
def test_a_choice_keeps_what_it_promises(
    startup: float, work: float, tail: float, maximum: int, optimise: str
) -> None:
    pace = Pace(startup, work, tail, 1)
    chosen = choose_shards(pace, 1.0, optimise, maximum)  # type: ignore[arg-type]
    assert 1 <= chosen <= maximum
    if optimise == "efficiency":
        assert pace.busy(1.0, chosen) <= 1.1 * pace.busy(1.0, 1) * (1 + 1e-9)
    if optimise == "rush" and chosen < maximum:
        assert pace.wall(1.0, chosen) <= 1.15 * (startup + tail) * (1 + 1e-9) or chosen == 1


def test_twice_the_tokens_take_twice_the_work() -> None:
    pace = fit([Observation(1, 1000, 110, 110, startup_seconds=10)])
    assert pace.wall(2000, 1) == pytest.approx(210, rel=0.01)


def test_without_any_run_it_says_so() -> None:
    with pytest.raises(UserError, match="No earlier run"):
        fit([])
    assert held_out_errors([]) == {}
