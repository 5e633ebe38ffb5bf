"""Checkpoints of one training belong together, whatever the training program calls them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightshard.core.checkpoints import Checkpoint, checkpoint_of

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("model", "revision", "family", "step"),
    [
        ("/scratch/run7/checkpoint-500", None, "run7", 500),
        ("/scratch/run7/checkpoint-500/", None, "run7", 500),
        ("/scratch/run7/global_step1000", None, "run7", 1000),
        ("/scratch/run7/iter_0001000", None, "run7", 1000),
        ("/scratch/run7-step-20", None, "run7", 20),
        ("EleutherAI/pythia-1b", "step3000", "EleutherAI/pythia-1b", 3000),
        ("allenai/OLMo", "stage1-step500", "allenai/OLMo@stage1", 500),
        ("org/model-step100", None, "org/model", 100),
        ("org/model", "main", "org/model", None),
        ("org/Qwen2-7B", None, "org/Qwen2-7B", None),
        ("/checkpoint-5", None, "checkpoint-5", 5),
    ],
)
def test_family_and_step_are_read_from_name_and_revision(model, revision, family, step) -> None:
    assert checkpoint_of(model, revision) == Checkpoint(family, step)


@given(st.text(min_size=1, max_size=60), st.none() | st.text(max_size=30))
def test_any_name_has_a_family_or_is_its_own(model: str, revision: str | None) -> None:
    found = checkpoint_of(model, revision)
    assert found.step is None or found.step >= 0


@given(st.integers(0, 10**15 - 1), st.sampled_from(["checkpoint-{}", "step{}", "iter_{:07d}"]))
def test_the_checkpoints_of_one_folder_share_a_family(step: int, form: str) -> None:
    assert checkpoint_of(f"/runs/a/{form.format(step)}") == Checkpoint("a", step)
