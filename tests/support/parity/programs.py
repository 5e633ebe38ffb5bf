"""Programs whose truth is known, for two small problems in LiveCodeBench's own form."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Task:
    """One problem.

    Attributes:
        name: of the method, None where programs read standard input.
        tests: pairs of input and output.
    """

    name: str | None
    tests: tuple[tuple[str, str], ...]


SUM = Task(None, (("1 2\n", "3\n"), ("5 7\n", "12\n")))
HALVES = Task(None, (("1\n3\n", "0.5\n1.5\n"), ("2\n4\n", "1\n2\n")))
ADD = Task("add", (("1\n2", "3"), ("5\n7", "12")))
PAIRS = Task("pairs", (("[1, 2]\n[3, 4]", "[[1, 3], [2, 4]]"), ("[1]\n[2]", "[[1, 2]]")))

HEAD = "class Solution:\n    def add(self, a: int, b: int) -> int:\n        "
LIST_HEAD = "class Solution:\n    def pairs(self, a: List[int], b: List[int]) -> List[List[int]]:\n"

PROGRAMS: tuple[tuple[Task, str, bool], ...] = (
    (SUM, "print(sum(map(int, input().split())))", True),
    (SUM, "import sys\nprint(sum(map(int, sys.stdin.read().split())))", True),
    (SUM, "import sys\nprint(sum(map(int, sys.stdin.buffer.read().split())))", True),
    (SUM, "import sys\nprint(sum(map(int, sys.stdin.readline().split())))", True),
    (SUM, "a, b = map(int, input().split())\nprint(a + b)\nexit()", True),
    (SUM, "a, b = map(int, open(0).read().split())\nprint(a + b)", True),
    (SUM, "def main():\n    print(sum(map(int, input().split())))\nmain()", True),
    (
        SUM,
        "def main():\n    print(sum(map(int, input().split())))\n"
        "if __name__ == '__main__':\n    main()",
        True,
    ),
    (SUM, "print(float(sum(map(int, input().split()))))", True),
    (SUM, "print(sum(map(int, input().split())), ' ')", True),
    (SUM, "q = deque(map(int, input().split()))\nprint(q.pop() + q.pop())", True),
    (SUM, "print(reduce(lambda a, b: a + b, map(int, input().split())))", True),
    (SUM, "import numpy as np\nprint(np.array(list(map(int, input().split()))).sum())", True),
    (SUM, "print(3)", False),
    (SUM, "print()", False),
    (SUM, "", False),
    (SUM, "print(sum(map(int, input().split())) + 1)", False),
    (SUM, "print(sum(map(int, input().split())))\nprint('done')", False),
    (SUM, "print('Sum:', sum(map(int, input().split())))", False),
    (SUM, "raise ValueError", False),
    (SUM, "print(sum(map(int, input().split()))", False),
    (SUM, "a = input()\nb = input()\nprint(int(a) + int(b))", False),
    (SUM, "print('three')", False),
    (SUM, "import sys\nsys.exit(0)", False),
    (SUM, "while True: pass", False),
    (HALVES, "for _ in range(2): print(int(input()) / 2)", True),
    (HALVES, "for _ in range(2): print(f'{int(input()) / 2:.3f}')", True),
    (HALVES, "print(*(int(input()) / 2 for _ in range(2)), sep='\\n')", True),
    (HALVES, "print(*(int(input()) / 2 for _ in range(2)))", False),
    (HALVES, "for _ in range(2): print(int(input()) // 2)", False),
    (HALVES, "print(int(input()) / 2)", False),
    (ADD, HEAD + "return a + b", True),
    (ADD, HEAD + "print('noise')\n        return a + b", True),
    (ADD, HEAD + "return float(a + b)", True),
    (ADD, HEAD + "return sum([a, b])", True),
    (
        ADD,
        HEAD + "def f(n):\n            return f(n - 1) if n else 0\n        return a + b + f(9000)",
        True,
    ),
    (ADD, HEAD + "return a - b", False),
    (ADD, HEAD + "return str(a + b)", False),
    (ADD, HEAD + "return None", False),
    (ADD, HEAD + "print(a + b)", False),
    (ADD, HEAD + "return [a + b]", False),
    (ADD, HEAD + "raise KeyError", False),
    (ADD, "class Solution:\n    def plus(self, a, b):\n        return a + b", False),
    (ADD, HEAD + "while True: pass", False),
    (ADD, HEAD + "return a + b +", False),
    (PAIRS, LIST_HEAD + "        return [[x, y] for x, y in zip(a, b)]", True),
    (PAIRS, LIST_HEAD + "        return tuple([x, y] for x, y in zip(a, b))", True),
    (PAIRS, LIST_HEAD + "        return list(map(list, zip(a, b)))", True),
    (PAIRS, LIST_HEAD + "        return list(zip(a, b))", False),
    (PAIRS, LIST_HEAD + "        return [a, b]", False),
    (PAIRS, LIST_HEAD + "        return {x: y for x, y in zip(a, b)}", False),
)
