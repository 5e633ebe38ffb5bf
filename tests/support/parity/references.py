"""Judges that are not ours: what each says of an answer.

They see an answer without its thinking, as lm-evaluation-harness hands it to its filters where a
``think_end_token`` is set.
"""

import ast
import importlib.util
import json
import subprocess
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lm_eval.tasks.aime.utils import last_boxed_only_string
from math_verify import parse, verify

from nightshard.benchmarks import harness

TASKS = Path(str(importlib.util.find_spec("lm_eval").origin)).parent / "tasks"  # type: ignore[union-attr]


def without_thinking(text: str) -> str:
    """Return what follows the end of thinking; nothing where it never ends."""
    if "<think>" in text and "</think>" not in text:
        return ""
    return text.rpartition("</think>")[2].lstrip()


def math(gold: str, text: str) -> bool:
    """Tell what math-verify says of the last box that lm-eval finds, or of the whole answer."""
    answer = without_thinking(text)
    said = last_boxed_only_string(answer) or answer
    return bool(verify(parse(f"\\boxed{{{gold}}}"), parse(said)))


def task(file: str, chosen: str, doc: Mapping[str, Any], text: str) -> bool:
    """Tell what a task of lm-eval says, by one of its filters and its first metric."""
    judge = harness._judging_task(str(TASKS / file), doc)
    filtered = harness._filtered(judge, doc, without_thinking(text))
    scores = judge.process_results(doc, [filtered[chosen]])
    return next(iter(scores.values())) == 1


def aime(gold: str, text: str) -> bool:
    """Tell what lm-eval's aime24 says: the last box, compared as a string."""
    return task("aime/aime24.yaml", "none", {"Problem": "", "Answer": gold}, text)


def gsm8k(gold: str, text: str) -> bool:
    """Tell what lm-eval's gsm8k says: the last number of the answer."""
    doc = {"question": "", "answer": f"#### {gold}"}
    return task("gsm8k/gsm8k-cot-zeroshot.yaml", "flexible-extract", doc, text)


def gpqa(gold: str, text: str) -> bool:
    """Tell what lm-eval's gpqa says: the last letter in brackets."""
    options = {f"choice{number}": str(number) for number in range(1, 5)}
    doc = {"Question": "", "answer": f"({gold})", "choices": [*options.values()], **options}
    file = "gpqa/cot_zeroshot/gpqa_diamond_cot_zeroshot.yaml"
    return task(file, "flexible-extract", doc, text)


def mmlu_pro(gold: str, text: str) -> bool:
    """Tell what lm-eval's mmlu_pro says: the first letter after "answer is"."""
    doc = {"question": "", "options": list("0123456789"), "answer": gold, "cot_content": ""}
    return task("mmlu_pro/mmlu_pro_math.yaml", "custom-extract", doc, text)


def plain_exec(program: str, exam: str) -> bool:
    """Tell whether a program and assertions about it run through in one interpreter.

    As the harnesses of HumanEval and MBPP do, in a process of its own.
    """
    ran = subprocess.run(
        [sys.executable, "-I", "-c", f"{program}\n{exam}"],
        capture_output=True,
        timeout=60,
        check=False,
    )
    return ran.returncode == 0


def jee_bench(file: Path) -> Callable[[str, str, str], float]:
    """Return the ``compute_score`` of JEEBench's authors.

    Args:
        file: their ``compute_metrics.py``, of github.com/dair-iitd/jeebench.

    Returns:
        A function of gold, response and kind.
    """
    # The file scores its own data when it is run, so only what the function needs is.
    tree = ast.parse(file.read_text())
    tree.body = [
        node
        for node in tree.body
        if isinstance(node, ast.FunctionDef)
        or (isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "QUES_TYPES")
    ]
    names: dict[str, Any] = {}
    exec(compile(tree, str(file), "exec"), names)
    return lambda gold, response, kind: float(names["compute_score"](gold, response, kind, None))


OFFICIAL = """
import importlib.util, json, os, signal, sys
spec = importlib.util.spec_from_file_location("official", sys.argv[1])
official = importlib.util.module_from_spec(spec)
spec.loader.exec_module(official)
signal.signal(signal.SIGALRM, official.timeout_handler)
replies = os.fdopen(os.dup(1), "w")  # programs print, too
os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
for line in sys.stdin.read().split("\\n"):
    if line:
        job = json.loads(line)
        grade = official.grade_call_based if job["name"] else official.grade_stdio
        given = [job["name"]] if job["name"] else []
        try:
            said = grade(job["code"], job["inputs"], job["outputs"], *given, timeout=6)
        except BaseException as error:
            said = None
        passed = bool(said) and all(one is True for one in said[0])
        print(json.dumps(passed), file=replies, flush=True)
"""


def live_code_bench(file: Path, jobs: Sequence[Mapping[str, Any]]) -> list[bool]:
    """Tell what LiveCodeBench's own ``testing_util.py`` says of programs.

    Args:
        file: that file, of github.com/LiveCodeBench/LiveCodeBench.
        jobs: ``code``, ``name`` of the method or None, ``inputs`` and ``outputs`` of its tests.
    """
    lines = "".join(json.dumps(job) + "\n" for job in jobs)
    said = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(OFFICIAL), str(file)],
        input=lines,
        capture_output=True,
        text=True,
        timeout=600,
        check=True,
    )
    return [bool(json.loads(line)) for line in said.stdout.split("\n") if line]
