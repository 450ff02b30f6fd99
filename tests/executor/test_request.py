"""Resources with the official plugin's names become options of sbatch; an error is one line."""

from __future__ import annotations

import pytest

from snakemake_executor_plugin_submitit.request import RequestError, build_request

SNAKEMAKE_RESOURCES = {"_cores": 1, "_nodes": 1, "tmpdir": "/tmp", "disk_mb": 1000}


def options(threads: int = 1, **resources) -> dict[str, str]:
    return dict(
        build_request(
            {**SNAKEMAKE_RESOURCES, **resources}, threads, is_mpi=bool(resources.get("mpi"))
        ).options
    )


CASES = {
    "nothing": ({}, {"nodes": "1", "ntasks": "1", "cpus-per-task": "1"}),
    "memory": ({"mem_mb": 3000}, {"mem": "3000M"}),
    "memory per CPU": ({"mem_mb_per_cpu": 500, "mem_mb": 9}, {"mem-per-cpu": "500M"}),
    "place": (
        {"slurm_account": "a.b", "slurm_partition": "gpu,cpu", "qos": "high", "reservation": "r-1"},
        {"account": "a.b", "partition": "gpu,cpu", "qos": "high", "reservation": "r-1"},
    ),
    "constraint": ({"constraint": "gpu&(a100|h100)"}, {"constraint": "gpu&(a100|h100)"}),
    "GPUs": ({"gpu": 2}, {"gpus": "2"}),
    "GPUs of a model": ({"gpu": 2, "gpu_model": "h100"}, {"gpus": "h100:2"}),
    "gres": ({"gres": "gpu:a100:2,shard:1"}, {"gres": "gpu:a100:2,shard:1"}),
    "several nodes": (
        {"nodes": 2, "tasks_per_node": 4, "mpi": "srun"},
        {"nodes": "2", "ntasks-per-node": "4"},
    ),
    "tasks": ({"tasks": 8}, {"ntasks": "8"}),
    "tasks without mpi": ({"tasks": 8, "tasks_per_node": 4}, {"ntasks": "8"}),
    "tasks of a GPU": ({"gpu": 2, "tasks": 3}, {"gpus": "2", "ntasks-per-gpu": "3"}),
    "a manufacturer": ({"gpu": 1, "gpu_manufacturer": "nvidia"}, {"gpus": "1"}),
    "a model alone": ({"gpu_model": "a100"}, {"gpus": "a100:1"}),
    "GPUs and gres": ({"gpu": 1, "gres": "shard:4"}, {"gpus": "1", "gres": "shard:4"}),
    "gres with a unit": ({"gres": "tmp:20G"}, {"gres": "tmp:20G"}),
    "CPUs per GPU": ({"gpu": 1, "cpus_per_gpu": 8}, {"cpus-per-gpu": "8"}),
    "cluster": ({"cluster": "a"}, {"clusters": "a"}),
    "Slurm's cluster": ({"slurm_cluster": "a"}, {"clusters": "a"}),
    "no requeue": ({"slurm_extra": "--no-requeue"}, {"no-requeue": ""}),
    "extra": (
        {"slurm_extra": "--mail-type=END --exclusive '--mail-user=a@b.org'"},
        {"mail-type": "END", "exclusive": "", "mail-user": "a@b.org"},
    ),
    "extra with a space": ({"slurm_extra": "--mail-type END"}, {"mail-type": "END"}),
}


@pytest.mark.parametrize(("resources", "expected"), CASES.values(), ids=CASES)
def test_options(resources, expected):
    assert expected.items() <= options(**resources).items()


NOT_GIVEN = {
    "no CPU option": ({"cpus_per_task": -1}, "cpus-per-task"),
    "none for GPUs": ({"gpu": 1, "cpus_per_gpu": 0}, "cpus-per-task"),
    "either": ({"gpu": 1, "cpus_per_gpu": 0}, "cpus-per-gpu"),
    "no memory": ({"mem_mb": 0}, "mem"),
    "no memory per CPU": ({"mem_mb_per_cpu": 0}, "mem-per-cpu"),
    "a model of no GPU": ({"gpu": 0, "gpu_model": "a100"}, "gpus"),
}


@pytest.mark.parametrize(("resources", "option"), NOT_GIVEN.values(), ids=NOT_GIVEN)
def test_numbers_that_are_not_given(resources, option):
    """Zero or a negative number omits an option, or gives a default, as in the official plugin."""
    assert option not in options(**resources)
    assert build_request({**SNAKEMAKE_RESOURCES, "runtime": 0}, 1).minutes == 60


def test_without_a_gpu_there_is_no_option_for_one():
    assert not {"gpus", "gres"} & options(gpu=0).keys()


def test_a_request_counts_its_resources():
    request = build_request(
        {**SNAKEMAKE_RESOURCES, "gres": "gpu:a100:2", "mem_mb": 4000, "runtime": 90}, 6
    )
    assert (request.cpus, request.gpus, request.mem_mb, request.minutes) == (6, 2, 4000, 90)
    assert build_request({"gres": "gpu"}, 1).gpus == 1
    assert build_request({"gres": "gpu:3"}, 1).gpus == 3


def test_defaults_apply_where_the_job_does_not_set_the_resource():
    assert dict(build_request({}, 1, {"partition": "low"}).options)["partition"] == "low"
    assert (
        dict(build_request({"slurm_partition": "high"}, 1, {"partition": "low"}).options)[
            "partition"
        ]
        == "high"
    )


def test_equal_jobs_share_a_request():
    assert build_request({"mem_mb": 500, "runtime": 3}, 2) == build_request(
        {"runtime": 3.0, "mem_mb": "500"}, 2
    )
    assert len({build_request({"mem_mb": mb}, 2) for mb in (500, 500, 600)}) == 2


def test_short_options():
    assert build_request({"slurm_extra": "-C gpu -w node[1-2]"}, 1).option("constraint") == "gpu"
    assert (
        build_request({"slurm_extra": "-C gpu -w node[1-2]"}, 1).option("nodelist") == "node[1-2]"
    )


REFUSED = {
    "infinite": ({"runtime": "inf"}, "runtime: inf is not a whole number"),
    "not a number": ({"mem_mb": float("nan")}, "mem_mb: nan is not a whole number"),
    "counted": (
        {"slurm_extra": "--ntasks=2"},
        "slurm_extra: --ntasks: use the resource tasks instead",
    ),
    "short": ({"slurm_extra": "-J x"}, "slurm_extra: --job-name is set by the plugin"),
    "short and unknown": (
        {"slurm_extra": "-Z1"},
        "slurm_extra: '-Z1': use the long form of the option",
    ),
    "shell": ({"slurm_partition": "a; rm -rf ~"}, "slurm_partition: 'a; rm -rf ~' contains ';'"),
    "substitution": ({"constraint": "$(id)"}, "constraint: '$(id)' contains '$'"),
    "newline": ({"qos": "a\nb"}, "qos: 'a\\nb' contains '\\n'"),
    "option": ({"slurm_account": "a b"}, "slurm_account: 'a b' contains ' '"),
    "runtime": ({"runtime": "soon"}, "runtime: 'soon' is not a number of minutes"),
    "negative runtime": ({"runtime": -1}, "runtime: -1 is less than 0"),
    "memory": ({"mem_mb": "much"}, "mem_mb: 'much' is not a number"),
    "negative memory": ({"mem_mb": -5}, "mem_mb: -5 is less than 0"),
    "GPUs": ({"gpu": -1}, "gpu: -1 is less than 0"),
    "half a GPU": ({"gpu": 0.5}, "gpu: 0.5 is not a whole number"),
    "mpi of one": ({"mpi": "srun", "tasks": 1}, "tasks: 1 is too few for mpi"),
    "mpi of none": ({"mpi": "srun"}, "mpi: give either tasks or tasks_per_node"),
    "mpi twice": (
        {"mpi": "srun", "tasks": 4, "tasks_per_node": 2},
        "mpi: give either tasks or tasks_per_node",
    ),
    "shortened": ({"slurm_extra": "--arr=0-1"}, "slurm_extra: --arr is set by the plugin"),
    "time": (
        {"slurm_extra": "--tim=5"},
        "slurm_extra: --tim is set by the plugin; use the resource runtime instead",
    ),
    "GPUs by node": (
        {"slurm_extra": "--gpus-per-node=1"},
        "slurm_extra: --gpus-per-node: use the resource gpu instead",
    ),
    "gres": ({"gres": "gpu:1 --wrap=id"}, "gres: 'gpu:1 --wrap=id' is not of the form"),
    "managed": ({"slurm_extra": "--job-name=x"}, "slurm_extra: --job-name is set by the plugin"),
    "not an option": ({"slurm_extra": "x"}, "slurm_extra: 'x' is not of the form --option"),
    "quotes": ({"slurm_extra": "--mail-user='a"}, "slurm_extra: "),
    "shell in extra": (
        {"slurm_extra": "--mail-user=`id`"},
        "slurm_extra: the value of --mail-user contains",
    ),
}


@pytest.mark.parametrize(("resources", "expected"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_requested(resources, expected):
    with pytest.raises(RequestError) as error:
        build_request({**SNAKEMAKE_RESOURCES, **resources}, 1, is_mpi=bool(resources.get("mpi")))
    assert str(error.value).startswith(expected)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("minutes", "delay", "expected"),
    [(60, 90, 90), (4, 90, 90), (3, 90, 60), (3, 20, 20), (2, 90, 30), (1, 5, 0)],
)
def test_a_short_limit_has_a_short_warning(minutes, delay, expected):
    """With a long warning, a job with a short limit would be asked to stop at its start.

    Slurm may send the warning up to a minute early.
    """
    assert build_request({"runtime": minutes}, 1).warning_seconds(delay) == expected


def test_memory_is_enough_for_an_interpreter():
    """A rule that requests 5 MB means its own tool; the task also needs Python and Snakemake."""
    assert build_request({"mem_mb": 5}, 1).option("mem") == "300M"
    assert build_request({"mem_mb": 5}, 1).mem_mb == 300, "what a pack asks for builds on it"


TASK_COUNTS = {
    "one": ({}, 1),
    "tasks": ({"tasks": 8}, 8),
    "mpi": ({"mpi": "srun", "tasks": 16}, 16),
    "mpi on every node": ({"mpi": "srun", "nodes": 2, "tasks_per_node": 4}, 8),
    "gpus": ({"gpu": 4}, 1),
    "tasks of every gpu": ({"gpu": 4, "tasks_per_gpu": 2}, 8),
}


@pytest.mark.parametrize("name", TASK_COUNTS)
def test_the_number_of_tasks_is_that_on_all_nodes(name):
    """A job that calls srun finds this number in SLURM_NTASKS."""
    resources, expected = TASK_COUNTS[name]
    assert build_request(resources, 1, is_mpi="mpi" in resources).tasks == expected
