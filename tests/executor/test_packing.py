"""Arrays and packs hold every job once, give every slot work, and respect all limits."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snakemake_executor_plugin_submitit.cluster import UNLIMITED, Capacity
from snakemake_executor_plugin_submitit.jobs import PendingJob
from snakemake_executor_plugin_submitit.packing import MAX_PACK_SIZE, PackLimits, build_arrays
from snakemake_executor_plugin_submitit.request import build_request
from tests.unit.fabricate import STEADY

LIMITS = PackLimits(pack=0, pack_runtime=10, pack_minutes=30)


def arrays_of(jobs, capacity, array_size: int, limits: PackLimits = LIMITS):
    """The arrays of jobs, with the default settings unless others are given."""
    return build_arrays(jobs, capacity, array_size, limits)


def pending_job(
    name: str,
    threads: int = 1,
    can_be_packed: bool = True,
    attempt: int = 1,
    rule: str = "rule",
    **resources,
) -> PendingJob:
    request = build_request({"runtime": 1, "mem_mb": 500, **resources}, threads)
    return PendingJob(None, name, "", name, rule, "log", "command", request, can_be_packed, attempt)


def capacity(slots: int, minutes: int = UNLIMITED):
    """Return what a cluster offers that starts `slots` tasks at a time, for `minutes` each."""
    return lambda _: Capacity(slots, minutes)


def names(arrays) -> list[list[list[str]]]:
    return [[[job.name for job in task] for task in array.tasks] for array in arrays]


@pytest.mark.parametrize(("can_be_packed", "tasks"), [(False, 200), (True, 10)])
def test_equal_jobs_are_one_array_across_rules(can_be_packed, tasks):
    """Jobs of different rules with equal requests share an array, and packed ones also a task."""
    jobs = [
        pending_job(f"j{i}", can_be_packed=can_be_packed, rule=f"rule{i % 3}") for i in range(200)
    ]
    (array,) = arrays_of(jobs, capacity(10), 1000)
    assert len(array.tasks) == tasks
    assert {job.rule for job in array.jobs} == {"rule0", "rule1", "rule2"}
    of_first = {job.rule for job in array.tasks[0]}
    assert len(of_first) == (3 if can_be_packed else 1)


def test_other_requests_are_other_arrays():
    jobs = [
        pending_job("a", runtime=90),
        pending_job("b", runtime=90, mem_mb=900),
        pending_job("c", runtime=90),
    ]
    assert names(arrays_of(jobs, capacity(9), 1000)) == [[["a"], ["c"]], [["b"]]]


def test_arrays_are_no_longer_than_slurm_allows():
    arrays = arrays_of(
        [pending_job(f"j{i}", can_be_packed=False) for i in range(25)], capacity(4), 10
    )
    assert [len(array.tasks) for array in arrays] == [10, 10, 5]


def test_short_jobs_are_packed_so_that_every_slot_gets_work():
    (array,) = arrays_of([pending_job(f"j{i}") for i in range(200)], capacity(10), 1000)
    assert [len(task) for task in array.tasks] == [20] * 10
    assert array.request.minutes == 20, "the sum of its jobs"
    assert array.request.option("mem") == "600M", "the largest and the interpreter"


def test_a_pack_asks_for_no_more_time_than_the_setting():
    (array,) = arrays_of(
        [pending_job(f"j{i}", runtime=7) for i in range(40)],
        capacity(1),
        1000,
        PackLimits(pack=0, pack_runtime=10, pack_minutes=30),
    )
    assert max(len(task) for task in array.tasks) == 4
    assert array.request.minutes == 28


def test_a_pack_asks_for_no_more_time_than_the_partition_allows():
    (array,) = arrays_of(
        [pending_job(f"j{i}", runtime=7) for i in range(40)], capacity(1, 15), 1000
    )
    assert array.request.minutes == 14
    (array,) = arrays_of([pending_job(f"j{i}", runtime=7) for i in range(3)], capacity(1, 5), 1000)
    assert len(array.tasks) == 3, "Slurm itself refuses what asks for more"


NOT_PACKED = {
    "GPUs": {"gpu": 1},
    "long": {"runtime": 11},
    "several nodes": {"nodes": 2, "tasks": 2},
    "a retry": {"attempt": 2},
    "not plain Snakemake": {"can_be_packed": False},
}


@pytest.mark.parametrize("properties", NOT_PACKED.values(), ids=NOT_PACKED)
def test_what_is_never_packed(properties):
    (array,) = arrays_of([pending_job(f"j{i}", **properties) for i in range(20)], capacity(2), 1000)
    assert [len(task) for task in array.tasks] == [1] * 20


def test_packing_can_be_switched_off():
    (array,) = arrays_of(
        [pending_job(f"j{i}") for i in range(20)],
        capacity(2),
        1000,
        PackLimits(pack=1, pack_runtime=10, pack_minutes=30),
    )
    assert len(array.tasks) == 20


@STEADY
@given(
    st.lists(
        st.tuples(st.sampled_from([1, 5, 60]), st.sampled_from([100, 1500]), st.integers(0, 1)),
        max_size=120,
    ),
    st.integers(1, 30),
    st.integers(1, 50),
)
def test_every_job_is_in_one_task(kinds, slots, size):
    """Every job is in exactly one task, which has at least the time and memory that it requests."""
    jobs = [pending_job(f"j{i}", runtime=t, mem_mb=m, gpu=g) for i, (t, m, g) in enumerate(kinds)]
    arrays = arrays_of(jobs, capacity(slots), size)
    seen = Counter(job.name for array in arrays for task in array.tasks for job in task)
    assert seen == Counter(job.name for job in jobs)
    for array in arrays:
        assert len(array.tasks) <= size
        for task in array.tasks:
            assert len(task) <= MAX_PACK_SIZE
            assert sum(job.request.minutes for job in task) <= array.request.minutes
            assert max(job.request.mem_mb for job in task) <= array.request.mem_mb
            assert {job.request.gpus for job in task} == {array.request.gpus}
