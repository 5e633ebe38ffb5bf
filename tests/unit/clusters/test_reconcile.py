"""What is left behind on a cluster: found, and never more than that."""

import json
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightshard.clusters.documents import Intent, RunIdentity
from nightshard.clusters.errors import TransportError
from nightshard.clusters.inventory import (
    cancel_orphans,
    find_manifests,
    inventory_script,
    parse_inventory,
    take_inventory,
)
from nightshard.clusters.reconcile import (
    GRACE_S,
    Element,
    Findings,
    JobName,
    Orphan,
    RunFolder,
    RunNow,
    jobless_sentence,
    orphan_sentences,
    parse_job_name,
    reconcile,
    still_orphans,
)
from nightshard.clusters.slurm import ShardState
from nightshard.clusters.transport import CommandResult

pytestmark = pytest.mark.unit

OURS = "d1"
RUNS = PurePosixPath("/work/runs")
KEY = "20261125-0100-model-a1b2c3"
OLD = GRACE_S + 1
ALIVE = (ShardState.WAITING, ShardState.RUNNING)
WORKING_STATES = (
    None,
    "scheduled",
    "queued",
    "running",
    "deferred",
    "restarting",
    "up_for_retry",
    "up_for_reschedule",
    "a state of Airflow 4",
)
ENDED_STATES = ("success", "failed", "skipped", "upstream_failed", "removed")


def intent(label="a1", job_id="57", tasks=4, first_rank=0, key=KEY) -> Intent:
    return Intent(name=f"ns-{key}-{label}", tasks=tasks, job_id=job_id, first_rank=first_rank)


def folder(*, deployment=OURS, intents=None, key=KEY) -> RunFolder:
    identity = deployment and RunIdentity(
        deployment=deployment, dag_id="evaluate", dag_run_id="manual__1"
    )
    return RunFolder(RUNS / key, identity, {"a1": intent()} if intents is None else intents)


def element(label="a1", index=0, **changes) -> Element:
    fields = {
        "job_id": "57",
        "index": index,
        "state": ShardState.RUNNING,
        "name": f"ns-{KEY}-{label}",
        "script": f"{RUNS / KEY}/job-{label}.sbatch",
        "age_s": OLD,
    }
    return Element(**(fields | changes))


def look(elements, state, shards, **folder_changes) -> Findings:
    return reconcile(elements, {KEY: folder(**folder_changes)}, {KEY: RunNow(state, shards)}, OURS)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ns-run-1-a1", JobName("run-1", "a1", 1)),
        ("ns-run-1-a12-c0", JobName("run-1", "a12-c0", 12, chunk=0)),
        ("ns-run-1-a2-r17", JobName("run-1", "a2-r17", 2, rank=17)),
        ("ns-x-a1-r2-a3", JobName("x-a1-r2", "a3", 3)),
        ("ns-run-1", None),
        ("ns-run-1-a0", None),
        ("ns-run-1-a1-r2-c3", None),
        ("ns-Run-a1", None),
        ("my-ns-run-1-a1", None),
        ("ns-run-1-a1 ", None),
    ],
)
def test_only_our_job_names_are_read(name, expected):
    assert parse_job_name(name) == expected


keys = st.from_regex(r"[a-z0-9][a-z0-9-]{0,80}", fullmatch=True)


@given(
    keys,
    st.integers(1, 99),
    st.one_of(
        st.just(("", {})),
        *(
            st.integers(0, 9999).map(
                lambda n, letter=letter, field=field: (f"-{letter}{n}", {field: n})
            )
            for letter, field in (("c", "chunk"), ("r", "rank"))
        ),
    ),
)
def test_a_job_name_is_read_back_whatever_the_run_key_looks_like(key, attempt, tail):
    words, fields = tail
    label = f"a{attempt}{words}"
    assert parse_job_name(f"ns-{key}-{label}") == JobName(key, label, attempt, **fields)


@pytest.mark.parametrize(
    ("state", "shards", "orphan"),
    [
        (None, {}, "its run was deleted"),
        ("failed", {0: "failed"}, "its run has ended (failed)"),
        ("success", {0: "success"}, "its run has ended (success)"),
        ("failed", {}, "its run has ended (failed)"),
        ("running", {0: "failed"}, "the task of its shard has ended (failed)"),
        ("running", {0: "skipped", 1: "deferred"}, "the task of its shard has ended (skipped)"),
        ("running", {0: "deferred"}, None),
        ("running", {0: "running"}, None),
        ("running", {0: None}, None),
        ("running", {}, None),
        ("running", {1: "failed"}, None),
        ("queued", {0: "up_for_retry"}, None),
        ("failed", {0: None}, None),
        ("failed", {0: "restarting"}, None),
    ],
)
def test_a_job_is_left_behind_when_its_run_or_its_task_has_ended(state, shards, orphan):
    found = look([element()], state, shards)
    assert [one.reason for one in found.orphans] == ([orphan] if orphan else [])


@pytest.mark.parametrize(
    ("what", "changes", "folder_changes"),
    [
        ("another installation's folder", {}, {"deployment": "d2"}),
        ("a folder that is nobody's", {}, {"deployment": None}),
        ("no job of ours by its name", {"name": "train"}, {}),
        ("another run's name", {"name": "ns-other-a1"}, {}),
        ("one that has ended", {"state": ShardState.CANCELLED}, {}),
        ("one in an unknown state", {"state": ShardState.UNKNOWN}, {}),
        ("our name from another folder", {"script": "/home/x/job", "job_id": "58"}, {}),
        ("our name without a script", {"script": "", "job_id": "58"}, {}),
        ("a folder whose name only begins so", {"script": f"{RUNS / KEY}-2/j", "job_id": "5"}, {}),
    ],
)
def test_nothing_else_is_ever_cancelled(what, changes, folder_changes):
    assert look([element(**changes)], None, {}, **folder_changes) == Findings()


def test_a_job_that_the_intent_names_is_ours_where_the_site_hides_scripts():
    assert look([element(script="")], None, {}).orphans


def test_a_run_that_airflow_was_not_asked_for_is_left_alone():
    assert reconcile([element()], {KEY: folder()}, {}, OURS) == Findings()


@pytest.mark.parametrize("age", [None, 0, GRACE_S - 1])
def test_a_new_job_is_reported_and_left_alone(age):
    found = look([element(age_s=age)], None, {})
    assert found.orphans == ()
    assert [one.element.age_s for one in found.young] == [age]


def test_the_shard_of_an_element_comes_from_its_name_or_its_array():
    elements = [
        element(index=1),
        element("a1-c2", index=1),
        element("a2-r7", index=3),
        element("a1-c3", index=1),
    ]
    shards = dict.fromkeys(range(20), "failed")
    intents = {"a1": intent(), "a1-c2": intent("a1-c2", first_rank=10)}
    found = look(elements, "running", shards, intents=intents)
    assert [(one.element.name[len(KEY) + 4 :], one.ranks) for one in found.orphans] == [
        ("a1", (1,)),
        ("a1-c2", (11,)),
        ("a2-r7", (7,)),
    ]
    assert len(look(elements, None, {}, intents=intents).orphans) == len(elements)


def test_a_job_of_several_shards_is_unwanted_when_all_of_them_are():
    shared = Intent(name=f"ns-{KEY}-a1", tasks=7, job_id="57", per_job=3)
    again = Intent(name=f"ns-{KEY}-a2-r3-5", tasks=3, job_id="60", per_job=3)
    elements = [*(element(index=at) for at in range(3)), element("a2-r3-5", job_id="60", index=1)]
    states = {**dict.fromkeys(range(7), "failed"), 2: "deferred"}

    found = look(elements, "running", states, intents={"a1": shared, "a2-r3-5": again})

    assert [(one.element.job_id, one.ranks) for one in found.orphans] == [
        ("57", (3, 4, 5)),
        ("57", (6,)),
        ("60", (3, 4, 5)),
    ]


states = st.sampled_from([*WORKING_STATES, *ENDED_STATES])
elements = st.builds(
    Element,
    job_id=st.sampled_from(["57", "58"]),
    index=st.none() | st.integers(0, 3),
    state=st.sampled_from(ShardState),
    name=st.sampled_from([f"ns-{KEY}-{label}" for label in ("a1", "a1-c1", "a2-r2", "a9-c9")]),
    script=st.sampled_from(["", f"{RUNS / KEY}/job-a1.sbatch", "/elsewhere/job-a1.sbatch"]),
    age_s=st.none() | st.integers(0, 3 * GRACE_S),
)


@given(
    st.lists(elements, max_size=8),
    st.sampled_from([None, "queued", "running", "success", "failed", "a state of Airflow 4"]),
    st.dictionaries(st.integers(0, 5), states, max_size=6),
    st.sampled_from([OURS, "d2", None]),
)
def test_it_never_cancels_an_element_whose_task_may_still_want_it(
    listed, run_state, shards, deployment
):
    intents = {"a1": intent(), "a1-c1": intent("a1-c1", "58", 2, first_rank=2)}
    found = look(listed, run_state, shards, deployment=deployment, intents=intents)
    for one in found.orphans:
        assert deployment == OURS
        assert one.element.age_s >= GRACE_S
        assert one.element.state in ALIVE
        if run_state is None:
            continue
        # Which shards the element may be at work for, by the rules of submission alone.
        index = one.element.index
        label = one.element.name.removeprefix(f"ns-{KEY}-")
        rank = {"a1": index, "a1-c1": None if index is None else index + 2, "a2-r2": 2}[label]
        assert rank is not None
        if rank in shards:
            assert shards[rank] in ENDED_STATES
        else:
            assert run_state in {"success", "failed"}


def test_only_what_both_looks_at_airflow_agree_on_is_cancelled():
    both = [element(index=0), element(index=1)]
    before = look(both, "running", {0: "failed", 1: "failed"})
    after = look(both, "running", {0: "failed", 1: "running"})
    assert [one.element.index for one in still_orphans(before, after)] == [0]
    assert still_orphans(before, Findings()) == ()


def test_a_shard_is_without_a_job_when_slurm_lists_none_of_its_latest_attempt():
    intents = {"a1": intent(), "a2-r1": intent("a2-r1", "60", 1), "a2-r2": intent("a2-r2", None, 1)}
    shards = {0: "deferred", 1: "deferred", 2: "deferred", 3: "running"}
    found = look([element(index=1), element(index=2)], "running", shards, intents=intents)
    assert [(one.rank, one.job) for one in found.jobless] == [(0, "57_0"), (1, "60_1")]
    ended = [element(index=0, state=ShardState.FAILED)]
    assert [one.rank for one in look(ended, "running", {0: "deferred"}).jobless] == []
    assert look([], "success", shards, intents=intents).jobless == ()
    assert look([], None, shards, intents=intents).jobless == ()
    assert look([], "running", shards, intents={}).jobless == ()
    assert look([], "running", shards, intents=intents, deployment="d2").jobless == ()


def test_a_part_of_a_large_run_is_found_by_its_first_rank():
    intents = {"a1-c1": intent("a1-c1", first_rank=10, tasks=3)}
    found = look(
        [element("a1-c1", index=2)], "running", {11: "failed", 12: "deferred"}, intents=intents
    )
    assert [(one.rank, one.job) for one in found.jobless] == [(11, "57_1")]


def test_sentences_name_the_jobs_the_cause_and_what_to_do():
    elements = [element(index=index) for index in (0, 1, 2, 5)]
    found = look(elements, None, {}).orphans
    assert orphan_sentences(found, "Cancelled") == [
        f"Cancelled 57_[0-2,5] (ns-{KEY}-a1): its run was deleted."
    ]
    waiting, ended = look([], "running", {0: "deferred", 3: "failed"}).jobless
    assert "shard 1: Slurm no longer lists its job 57_0" in jobless_sentence(waiting)
    assert "gives it another attempt" in jobless_sentence(waiting)
    assert "clear the task `shard` with map index 3 in manual__1" in jobless_sentence(ended)


NONCE = "n1"
WORKDIR = PurePosixPath("/work")


def answer(squeue: str, files: str = "", clock: str = "Configuration data as of 1000", rc=0) -> str:
    return (
        f"Welcome\n\n@n1 clock \n{clock}\n\n@n1 squeue \n{squeue}\n@n1 status {rc}\n"
        f"\n@n1 files\n{files}\n@n1 end\n"
    )


def test_an_inventory_holds_jobs_with_their_age_and_folders_with_their_owner():
    identity = {"deployment": OURS, "dag_id": "evaluate", "dag_run_id": "m"}
    files = "\n".join(
        [
            f"./{KEY}/run.json:{json.dumps(identity)}",
            f"./{KEY}/submission-a1.json:{intent().model_dump_json()}",
            "./other/submission-a2-r1.json:{torn",
            "./third/run.json:{}",
            "nonsense",
        ]
    )
    squeue = (
        f"57_0|RUNNING|1:02|900|ns-{KEY}-a1|/work/runs/{KEY}/job-a1.sbatch\n"
        f"57_[2-3%1]|PENDING|0:00|990|ns-{KEY}-a1|(null)\n"
        "60|COMPLETED|0:10|N/A|a|b|c\nslurm says hello\n"
    )
    found = parse_inventory(answer(squeue, files), NONCE, WORKDIR)
    assert [(one.id, one.state.value, one.age_s) for one in found.elements] == [
        ("57_0", "running", 100),
        ("57_2", "waiting", 10),
        ("57_3", "waiting", 10),
        ("60", "ended_well", 10),
    ]
    assert found.elements[0].script == f"/work/runs/{KEY}/job-a1.sbatch"
    assert found.folders[KEY].identity == RunIdentity(**identity)
    assert found.folders[KEY].intents == {"a1": intent()}
    assert found.folders["third"].identity is None
    assert "other" not in found.folders


def test_without_the_controllers_clock_the_run_time_is_the_age():
    squeue = "57_0|RUNNING|1:02|900|n|s\n57_1|PENDING|0:00|900|n|s\n"
    found = parse_inventory(answer(squeue, clock="scontrol: not allowed"), NONCE, WORKDIR)
    assert [one.age_s for one in found.elements] == [62, 0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (answer("slurm_load_jobs error: Unable to contact", rc=1), "Unable to contact"),
        (answer("").rpartition("\n@n1 end")[0], "cut off"),
        ("", "cut off"),
    ],
)
def test_an_answer_that_is_no_answer_is_never_read_as_an_empty_queue(text, words):
    with pytest.raises(TransportError, match=words):
        parse_inventory(text, NONCE, WORKDIR)


async def test_a_federated_site_is_asked_for_the_clusters_of_its_submissions(lab):
    scripts = []

    def reply(words: list[str], stdin: str | None) -> CommandResult:
        scripts.append(stdin)
        nonce = stdin.partition("@%s %s\\n' ")[2].partition(" ")[0]
        submitted = intent().model_copy(update={"cluster": "east"})
        text = answer(
            "57_0|RUNNING|9:00|1|n|s", f"./{KEY}/submission-a1.json:{submitted.model_dump_json()}"
        )
        if "--clusters=east" in stdin:
            text = text.replace("squeue \n", "squeue east\n")
        return CommandResult(text.replace("@n1", f"@{nonce}"), "", 0)

    found = await take_inventory(lab.transport(reply), WORKDIR)
    assert len(scripts) == 2
    assert [one.cluster for one in found.elements] == ["east"]


def test_a_folder_with_a_strange_name_cannot_leave_its_quotes():
    script = inventory_script(PurePosixPath("/work/it's; rm -rf $HOME"), NONCE)
    assert """cd -- '/work/it'"'"'s; rm -rf $HOME/runs'""" in script


def listing(job_id: str, indices, name: str, word="RUNNING") -> str:
    return "".join(
        f"{job_id}_{at}|{job_id}|{at}|{job_id}|{word}|None|n|N/A|1:00|{name}\n" for at in indices
    )


async def test_orphans_are_cancelled_by_id_in_batches_after_a_look_at_their_name(lab):
    name = f"ns-{KEY}-a1"

    def reply(words: list[str], _: str | None) -> CommandResult:
        return CommandResult(listing("57", range(1300), name) * (words[0] == "squeue"), "", 0)

    transport = lab.transport(reply)
    await cancel_orphans(transport, [Orphan(element(index=at), KEY, at, "") for at in range(1200)])
    assert f"--name={name}" in transport.commands[0]
    assert [len(command) for command in transport.commands[1:]] == [501, 501, 201]
    # A name, or any other filter, would cancel every waiting element of the array.
    assert transport.commands[1][:2] == ["scancel", "57_0"]


@pytest.mark.parametrize(
    "text",
    [
        listing("58", [0], f"ns-{KEY}-a1"),
        listing("57", [0], "somebody-elses"),
        listing("57", [0], f"ns-{KEY}-a1", "COMPLETED"),
        listing("57", [1], f"ns-{KEY}-a1"),
        "",
    ],
)
async def test_a_job_that_is_no_longer_the_same_is_not_cancelled(lab, text):
    transport = lab.transport(lambda *_: CommandResult(text, "", 0))
    await cancel_orphans(transport, [Orphan(element(index=0), KEY, 0, "")])
    assert transport.ran("scancel") == 0


async def test_a_queue_that_does_not_answer_cancels_nothing_and_says_so(lab):
    transport = lab.transport(lambda *_: CommandResult("", "slurm_load_jobs error", 1))
    with pytest.raises(TransportError, match="squeue did not answer"):
        await cancel_orphans(transport, [Orphan(element(index=0, cluster="east"), KEY, 0, "")])
    assert "--clusters=east" in transport.commands[0]


async def test_manifests_are_looked_for_only_where_somebody_asks(lab):
    listing = f"/work/runs/{KEY}/outputs/shard-00003-of-00008.manifest.json\n/work/runs/x/y\n"
    transport = lab.transport(lambda *_: CommandResult(listing, "", 0))
    assert await find_manifests(transport, WORKDIR, []) == set()
    assert transport.commands == []
    assert await find_manifests(transport, WORKDIR, [KEY]) == {(KEY, 3)}
