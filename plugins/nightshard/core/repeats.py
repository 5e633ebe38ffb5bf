"""What several answers to one problem say: pass@k, majority votes, stability. Pure."""

import math
from collections import Counter
from collections.abc import Hashable, Sequence


def pass_at_k(n: int, correct: int, k: int) -> float:
    """Estimate the chance that at least one of ``k`` answers is right, without bias.

        1 - C(n - c, k) / C(n, k)

    Chen et al., "Evaluating Large Language Models Trained on Code", arXiv:2107.03374, equation 1.

    Args:
        n: answers to one problem.
        correct: how many of them are right.
        k: from 1 to ``n``.

    Raises:
        ValueError: an argument is out of bounds.
    """
    _check(n, correct, k)
    return 1 - math.comb(n - correct, k) / math.comb(n, k)


def g_pass_at_k(n: int, correct: int, k: int, share: float) -> float:
    """Estimate the chance that at least ``share`` of ``k`` answers are right, without bias.

        sum over j from ceil(share * k) to c of C(c, j) C(n - c, k - j) / C(n, k)

    Liu et al., "Are Your LLMs Capable of Stable Reasoning?", arXiv:2412.13147, equation 3 (G-Pass@k
    with the threshold tau); with ``share`` 1 all ``k`` must be right.

    Args:
        n: answers to one problem.
        correct: how many of them are right.
        k: from 1 to ``n``.
        share: above 0, at most 1.

    Raises:
        ValueError: an argument is out of bounds.
    """
    _check(n, correct, k)
    if not 0 < share <= 1:
        raise ValueError(f"a share of {share} of the answers cannot be asked for")
    # Rounded first: 0.7 * 10 is a little above 7.
    least = math.ceil(round(share * k, 9))
    ways = sum(
        math.comb(correct, j) * math.comb(n - correct, k - j)
        for j in range(least, min(correct, k) + 1)
    )
    return ways / math.comb(n, k)


def majority(votes: Sequence[tuple[Hashable, bool]]) -> float:
    """Return whether the most frequent answer of all is right; a tie counts as its share.

    Self-consistency: Wang et al., arXiv:2203.11171. Among several most frequent answers one is
    drawn, so the expectation is the share of right ones among them. Answers without a vote (None)
    count only where there is no other.

    Args:
        votes: for each answer what it says, None for nothing, and whether that is right.

    Raises:
        ValueError: there are no votes.
    """
    if not votes:
        raise ValueError("there are no votes")
    said = [vote for vote in votes if vote[0] is not None] or list(votes)
    counts = Counter(said)
    most = max(counts.values())
    leading = [right for (_, right), count in counts.items() if count == most]
    return sum(leading) / len(leading)


def ks_for(repeats: int) -> list[int]:
    """Choose the k worth telling for a number of repeats: powers of two above 1, and all."""
    ks = {2**power for power in range(1, repeats.bit_length()) if 2**power <= repeats}
    return sorted(ks | ({repeats} if repeats > 1 else set()))


def _check(n: int, correct: int, k: int) -> None:
    if not 0 <= correct <= n or not 1 <= k <= n:
        raise ValueError(f"{correct} right of {n} answers, k={k}: out of bounds")
