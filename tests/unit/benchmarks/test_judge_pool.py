"""Judging in processes: the order is kept, and nothing a model wrote can hang or kill a run."""

import sys
import threading
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from nightshard.benchmarks.base import Problem, Verdict
from nightshard.benchmarks.judges import pool
from nightshard.benchmarks.judges.pool import JudgeError, Judgement, JudgePool, Outcome

pytestmark = pytest.mark.unit


def judgement(text: str, gold: str = "42") -> Judgement:
    return Judgement("MATH500", Problem("p", "q", gold), text)


SERVER = """
import json, os, sys, time
print("{}", flush=True)
for line in sys.stdin:
    request = json.loads(line)
    text = request["text"]
    if text == "die" or (text == "die once" and not os.path.exists(sys.argv[1])):
        open(sys.argv[1], "w").close()
        os._exit(3)
    while text == "spin":
        pass
    if text == "secret":
        text = str(sorted(os.environ))
    verdict = {"correct": True, "extracted": text if len(text) < 9999 else "", "reason": ""}
    print(json.dumps({"id": request["id"], "verdict": verdict}), flush=True)
"""


@pytest.fixture
def command(tmp_path: Path) -> tuple[str, ...]:
    server = tmp_path / "server.py"
    server.write_text(SERVER)
    return (sys.executable, str(server), str(tmp_path / "died"))


def extracted(outcomes: list[Outcome]) -> list[str | None]:
    return [o.extracted if isinstance(o, Verdict) else f"error: {o}" for o in outcomes]


def test_verdicts_come_in_the_order_of_the_answers_on_any_number_of_processes() -> None:
    work = [judgement(f"\\boxed{{{n}}}", str(n - n % 2)) for n in range(250)]
    one, three = JudgePool(1).judge(work), JudgePool(3).judge(work)
    assert one == three
    assert extracted(one) == [str(n) for n in range(250)]
    assert [o.correct for o in one if isinstance(o, Verdict)] == [n % 2 == 0 for n in range(250)]


def test_no_answers_start_no_process() -> None:
    assert JudgePool(1, ["/nonexistent"]).judge([]) == []


def test_a_monstrous_power_is_a_wrong_answer_and_its_neighbours_are_judged() -> None:
    texts = ["\\boxed{42}", "\\boxed{9^{9^{9^9}}}", "\\boxed{42}"]
    outcomes = JudgePool(1).judge(map(judgement, texts))
    assert [isinstance(o, Verdict) and o.correct for o in outcomes] == [True, False, True]
    assert "more than 5 s" in str(outcomes[1])


def test_it_works_in_a_thread_where_signals_do_not() -> None:
    outcomes: list[Outcome] = []
    thread = threading.Thread(
        target=lambda: outcomes.extend(JudgePool(1).judge([judgement("\\boxed{42}")]))
    )
    thread.start()
    thread.join()
    assert outcomes == [Verdict(True, "42", "same text as the gold")]


def test_an_unknown_benchmark_is_a_broken_judge_and_not_a_wrong_answer() -> None:
    outcomes = JudgePool(1).judge([Judgement("Nonesuch", Problem("p", "q", "1"), "1")])
    assert isinstance(outcomes[0], JudgeError)
    assert "no benchmark 'Nonesuch'" in str(outcomes[0])


def test_texts_are_taken_as_they_are_needed(command: tuple[str, ...]) -> None:
    tracemalloc.start()
    texts = ("x" * 100_000 + str(number) for number in range(2000))
    outcomes = JudgePool(1, command).judge(map(judgement, texts))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(outcomes) == 2000
    assert peak < 60_000_000  # all of them are 200 MB


def test_what_a_source_of_texts_raises_is_raised(command: tuple[str, ...]) -> None:
    def broken() -> Iterator[Judgement]:
        yield from (judgement("a") for _ in range(1000))
        raise OSError("the file is gone")

    with pytest.raises(OSError, match="the file is gone"):
        JudgePool(2, command).judge(broken())


def test_an_answer_that_kills_its_process_twice_is_wrong_and_the_rest_is_judged(
    command: tuple[str, ...],
) -> None:
    texts = [f"t{n}" for n in range(20)]
    texts[9] = "die"
    outcomes = JudgePool(1, command).judge(map(judgement, texts))
    assert outcomes[9] == Verdict(False, None, "the judge process died")
    assert extracted(outcomes) == [None if t == "die" else t for t in texts]


def test_a_process_that_died_by_accident_changes_no_verdict(command: tuple[str, ...]) -> None:
    outcomes = JudgePool(1, command).judge(map(judgement, ["a", "die once", "b"]))
    assert extracted(outcomes) == ["a", "die once", "b"]


def test_a_computation_that_no_signal_can_end_is_killed(
    command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "KILL_CPU_SECONDS", 0.2)
    monkeypatch.setattr(pool, "_POLL_SECONDS", 0.05)
    outcomes = JudgePool(1, command).judge(map(judgement, ["a", "spin", "b"]))
    assert extracted(outcomes) == ["a", None, "b"]
    assert "was killed" in str(outcomes[1])


def test_a_process_that_does_not_start_says_its_last_words() -> None:
    broken = (sys.executable, "-c", "raise SystemExit('no such scorer')")
    with pytest.raises(JudgeError, match=r"could not start.*no such scorer"):
        JudgePool(2, broken).judge([judgement("1")])


def test_the_processes_see_no_secret_of_the_control_plane(
    command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_NIGHTSHARD", "ssh://user:secret@host")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    seen = str(extracted(JudgePool(1, command).judge([judgement("secret")])))
    assert "PYTHONPATH" in seen
    assert "AIRFLOW" not in seen
    assert "HF_TOKEN" not in seen


def test_long_answers_in_many_letters_do_not_block_the_pipes() -> None:
    text = (
        "\\boxed{"
        + "\U0001f600" * 1990
        + "}"
        + "\U0001f600" * 200_000
        + "\\boxed{"
        + "\U0001f600" * 1990
        + "}"
    )
    outcomes = JudgePool(1).judge([judgement(text)] * 40)
    assert {isinstance(o, Verdict) and o.correct for o in outcomes} == {False}
