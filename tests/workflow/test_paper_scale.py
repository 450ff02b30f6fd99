"""`snakemake -n --profile slurm` plans the right jobs at scale paper.

These are the Ghost paper's networks on ImageNet and its detectors on COCO.
"""

from __future__ import annotations

import re
from collections import Counter

import pytest

from tests.conftest import Checkout

# Artifact -> variants with five seeds, since the numbers in the paper's tables are means of five
# runs; ONE has those with one seed, whose numbers the paper gives in prose only.
FIVE = {
    "tables/ghost.tab1.csv": [
        f"{family}{depth}" for family in ("resnet", "seqnet") for depth in (18, 34, 50, 101)
    ],
    "tables/ghost.tab3a.csv": [
        "seqnet50",
        "seqnet50-orthogonal",
        "seqnet50-looks-linear",
        "seqnet50-untied",
    ],
    "tables/ghost.tab3b.csv": [
        "seqnet50",
        "seqnet50-bias",
        "seqnet50-bn",
        "seqnet101",
        "seqnet101-bn",
    ],
    "tables/ghost.tab3c.csv": ["seqnet50", "seqnet50-second", "seqnet50-third"],
    "tables/ghost.tab4.csv": [
        f"seqnet{depth}{name}" for depth in (34, 50, 101) for name in ("", "-free")
    ],
    "tables/ghost.tab5.csv": ["seqnet50", "seqnet50-tied-both", "seqnet50-tied-none"],
    "tables/ghost.lr_grid.csv": ["seqnet34", "seqnet101"],
    "tables/ghost.b2_resnet_orth.csv": ["resnet50", "resnet50-orthogonal"],
    "figures/ghost.fig4_right.png": ["resnet50", "seqnet50"],
    "figures/ghost.c_gradnorm101.png": ["resnet101", "seqnet101"],
    "figures/ghost.fig7.png": ["resnet50", "seqnet50"],
    "figures/ghost.fig8.png": ["resnet101", "seqnet101"],
    "figures/ghost.fig9.png": ["seqnet50", "seqnet50-skip"],
}
ONE = {
    "tables/ghost.lr_grid.csv": [
        "seqnet34-lr0.01",
        "seqnet34-lr0.02",
        "seqnet34-lr0.08",
        "seqnet101-lr0.01",
    ]
}
JOB = re.compile(r"^(?:classify|pretrain|detect) +paper/(\w+)/(\S+)-s\d+ +(.*)$", re.MULTILINE)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Checkout:
    return Checkout(tmp_path_factory.mktemp("paper") / "checkout")


def data_of(checkout: Checkout) -> str:
    """Return the data as an argument of --config; any folder will do, as a dry run opens none."""
    return f'data={{"imagenet": "{checkout.folder}", "coco": "{checkout.folder}"}}'


def planned(checkout: Checkout, target: str) -> list[tuple[str, str, str]]:
    """Return (experiment, variant, resources) of every training job."""
    done = checkout.snakemake(
        "-n", "--profile", "slurm", f"results/paper/{target}", "--config", data_of(checkout)
    )
    assert done.returncode == 0, done.stdout[-3000:]
    return JOB.findall(done.stdout)


@pytest.mark.parametrize("target", FIVE)
def test_runs_and_what_each_asks_for(checkout, target):
    jobs = planned(checkout, target)
    seeds = dict.fromkeys(FIVE[target], 5) | dict.fromkeys(ONE.get(target, ()), 1)
    assert Counter((experiment, variant) for experiment, variant, _ in jobs) == {
        ("imagenet", variant): count for variant, count in seeds.items()
    }
    assert {resources for *_, resources in jobs} == {"gpu=4 mem_mb=128000 runtime=2880"}


def test_networks_at_initialization(checkout):
    jobs = planned(checkout, "figures/ghost.fig4_left.png")
    assert Counter(jobs) == {
        ("imagenet_init", net, "gpu=1 mem_mb=64000 runtime=60"): 8
        for net in ("plainnet50", "resnet50", "seqnet50")
    }


def test_detectors_wait_for_one_classifier(checkout):
    """Two detectors are fine-tuned from one SeqNet50.

    The rows of ResNets are cited, so they need no jobs.
    """
    jobs = planned(checkout, "tables/ghost.tab2.csv")
    assert sorted(jobs) == [
        ("coco", "seqnet50-2x", "gpu=4 mem_mb=128000 runtime=2880"),
        ("coco", "seqnet50-3x", "gpu=4 mem_mb=128000 runtime=2880"),
        ("imagenet", "seqnet50", "gpu=4 mem_mb=128000 runtime=2880"),
    ]


def test_threads_and_gpus_reach_the_command(checkout):
    """The command of a job gets all its GPUs, and its threads as far as --cores allows."""
    target = ("results/paper/figures/ghost.fig7.png", "--config", "scale=paper", data_of(checkout))
    for cores, threads in ((64, 48), (2, 2)):
        done = checkout.snakemake("-n", "-p", "--cores", str(cores), *target)
        assert done.stdout.count(f"--threads {threads} --gpus 4") == 10
