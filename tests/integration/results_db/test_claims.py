"""Runs of one checkpoint wait for each other, on both databases."""

import multiprocessing
from multiprocessing.synchronize import Barrier

import pytest
import sqlalchemy as sa

from nightshard.results.claims import LONGEST, Holder, release, take
from nightshard.results.database import make_engine, open_database, write_transaction
from nightshard.results.tables import Claim, utc_now

pytestmark = pytest.mark.integration


def holder(name: str) -> Holder:
    return Holder(name, "d1", "evaluate", f"manual__{name}")


def test_what_one_run_generates_another_waits_for(database_url: str) -> None:
    engine = open_database(database_url)
    assert take(engine, "f1", ["MATH500", "AIME24"], holder("a")) == []
    assert take(engine, "f1", ["AIME24", "AMC23"], holder("b")) == [holder("a")]
    assert take(engine, "f1", ["AMC23"], holder("c")) == []  # b took none of them
    assert take(engine, "f2", ["AIME24"], holder("b")) == []
    release(engine, "a")
    assert take(engine, "f1", ["AIME24"], holder("b")) == []


def test_a_task_that_is_tried_again_keeps_its_claims(database_url: str) -> None:
    engine = open_database(database_url)
    for _ in range(2):
        assert take(engine, "f1", ["MATH500"], holder("a")) == []


def test_the_claims_of_a_run_that_is_gone_are_taken_over(database_url: str) -> None:
    engine = open_database(database_url)
    take(engine, "f1", ["MATH500"], holder("a"))
    assert take(engine, "f1", ["MATH500"], holder("b"), gone=["x"]) == [holder("a")]
    assert take(engine, "f1", ["MATH500"], holder("b"), gone=["a"]) == []
    assert take(engine, "f1", ["MATH500"], holder("a")) == [holder("b")]


def test_a_claim_of_an_installation_that_is_gone_for_good_runs_out(database_url: str) -> None:
    engine = open_database(database_url)
    take(engine, "f1", ["MATH500"], holder("a"))
    with write_transaction(engine) as connection:
        connection.execute(sa.update(Claim).values(taken_at=utc_now() - LONGEST * 1.01))
    assert take(engine, "f1", ["MATH500"], holder("b")) == []


def race(url: str, number: int, barrier: Barrier, won: "multiprocessing.Queue[int]") -> None:
    engine = make_engine(url)
    names = ["MATH500", "AIME24", "AMC23"]
    barrier.wait()
    if not take(engine, "f1", names if number % 2 else names[::-1], holder(f"run-{number}")):
        won.put(number)


def test_of_many_that_ask_at_once_one_goes_on(database_url: str) -> None:
    open_database(database_url)
    context = multiprocessing.get_context("spawn")
    barrier, won = context.Barrier(8), context.Queue()
    racers = [context.Process(target=race, args=(database_url, n, barrier, won)) for n in range(8)]
    for one in racers:
        one.start()
    for one in racers:
        one.join(120)
    assert [one.exitcode for one in racers] == [0] * 8
    assert won.get(timeout=10) in range(8)
    assert won.empty()
