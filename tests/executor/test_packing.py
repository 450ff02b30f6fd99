"""Arrays and packs: every job once, few sbatch calls, work for every slot, nothing packed that must not be."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snakemake_executor_plugin_submitit.cluster import UNLIMITED
from snakemake_executor_plugin_submitit.packing import MOST, Waiting, arrays
from snakemake_executor_plugin_submitit.request import request
from tests.unit.fabricate import STEADY


def waiting(name: str, threads: int = 1, packable: bool = True, attempt: int = 1, **resources) -> Waiting:
    resources = {"runtime": 1, "mem_mb": 500, **resources}
    asked = request(resources, threads)
    return Waiting(None, name, "", name, "rule", "log", "command", asked, packable, attempt)


def room(slots: int, minutes: int = UNLIMITED):
    """A cluster that starts so many tasks at a time and lets each run so long."""
    return lambda _: (slots, minutes)


def names(found) -> list[list[list[str]]]:
    return [[[one.name for one in task] for task in array.tasks] for array in found]


def test_equal_jobs_are_one_array_across_rules():
    found = arrays([waiting(f"j{i}", packable=False) for i in range(200)], room(10), 1000)
    assert [len(array.tasks) for array in found] == [200]


def test_other_requests_are_other_arrays():
    jobs = [waiting("a", runtime=90), waiting("b", runtime=90, mem_mb=900), waiting("c", runtime=90)]
    assert names(arrays(jobs, room(9), 1000)) == [[["a"], ["c"]], [["b"]]]


def test_arrays_are_no_longer_than_slurm_allows():
    found = arrays([waiting(f"j{i}", packable=False) for i in range(25)], room(4), 10)
    assert [len(array.tasks) for array in found] == [10, 10, 5]


def test_short_jobs_are_packed_so_that_every_slot_gets_work():
    (array,) = arrays([waiting(f"j{i}") for i in range(200)], room(10), 1000)
    assert [len(task) for task in array.tasks] == [20] * 10
    assert array.request.minutes == 20, "the sum of its jobs"
    assert array.request.option("mem") == "600M", "the largest and the interpreter"


def test_a_pack_asks_for_no_more_time_than_the_setting():
    (array,) = arrays([waiting(f"j{i}", runtime=7) for i in range(40)], room(1), 1000, pack_minutes=30)
    assert max(len(task) for task in array.tasks) == 4
    assert array.request.minutes == 28


def test_a_pack_asks_for_no_more_time_than_the_partition_allows():
    (array,) = arrays([waiting(f"j{i}", runtime=7) for i in range(40)], room(1, 15), 1000)
    assert array.request.minutes == 14
    (array,) = arrays([waiting(f"j{i}", runtime=7) for i in range(3)], room(1, 5), 1000)
    assert len(array.tasks) == 3, "Slurm itself refuses what asks for more"


NOT_PACKED = {
    "GPUs": {"gpu": 1},
    "long": {"runtime": 11},
    "several nodes": {"nodes": 2, "tasks": 2},
    "a retry": {"attempt": 2},
    "not plain Snakemake": {"packable": False},
}


@pytest.mark.parametrize("more", NOT_PACKED.values(), ids=NOT_PACKED)
def test_what_is_never_packed(more):
    (array,) = arrays([waiting(f"j{i}", **more) for i in range(20)], room(2), 1000)
    assert [len(task) for task in array.tasks] == [1] * 20


def test_packing_can_be_switched_off():
    (array,) = arrays([waiting(f"j{i}") for i in range(20)], room(2), 1000, pack=1)
    assert len(array.tasks) == 20


@STEADY
@given(
    st.lists(st.tuples(st.sampled_from([1, 5, 60]), st.sampled_from([100, 1500]), st.integers(0, 1)), max_size=120),
    st.integers(1, 30),
    st.integers(1, 50),
)
def test_every_job_is_in_one_task(kinds, slots, size):
    """And has at least the time and memory that it asked for."""
    jobs = [waiting(f"j{i}", runtime=t, mem_mb=m, gpu=g) for i, (t, m, g) in enumerate(kinds)]
    found = arrays(jobs, room(slots), size)
    seen = Counter(one.name for array in found for task in array.tasks for one in task)
    assert seen == Counter(one.name for one in jobs)
    for array in found:
        assert len(array.tasks) <= size
        for task in array.tasks:
            assert len(task) <= MOST
            assert sum(one.request.minutes for one in task) <= array.request.minutes
            assert max(one.request.mem_mb for one in task) <= array.request.mem_mb
            assert {one.request.gpus for one in task} == {array.request.gpus}
