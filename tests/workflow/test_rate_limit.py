"""Snakemake's default limit of jobs per second does not apply; one that a user sets does."""

from __future__ import annotations

from tests.conftest import Checkout

TARGET = "results/data/digits.json"


def test_only_the_default_limit_is_removed(checkout: Checkout):
    call = "    remove_default_rate_limit(workflow)\n"
    checkout.edit(
        "Snakefile", call, f'{call}    print("LIMIT", workflow.scheduler.job_rate_limiter)\n'
    )
    assert "LIMIT None" in checkout.build(TARGET, "--config", "scale=smoke")
    checkout.path(TARGET).unlink()
    asked = checkout.build(TARGET, "--max-jobs-per-timespan", "100/1m", "--config", "scale=smoke")
    assert "LIMIT <" in asked
