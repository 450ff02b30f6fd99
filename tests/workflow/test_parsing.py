"""Reading the workflow is cheap: Snakemake does it again in the process of every job."""

from __future__ import annotations

from tests.conftest import Checkout


def test_the_workflow_is_read_without_torch_and_pandas(checkout: Checkout):
    """Neither a dry run nor the process of a job imports them."""
    target = "results/smoke/tables/ghost.eq1.csv"
    for arguments in (("-n",), ("--cores", "1", "--mode", "subprocess", "--force")):
        done = checkout.snakemake(
            target, *arguments, "--config", "scale=smoke", PYTHONPROFILEIMPORTTIME="1"
        )
        assert done.returncode == 0, done.stdout[-2000:]
        lines = [line for line in done.stdout.splitlines() if line.startswith("import time:")]
        imported = {line.rpartition("|")[2].strip() for line in lines}
        assert "ghostgrad.cli.rules" in imported
        assert not imported & {"torch", "torchvision", "pandas", "matplotlib", "scipy"}
