"""Snakemake's own limit of jobs per second is away, one that somebody asks for is not."""

from __future__ import annotations

from tests.conftest import Checkout

TARGET = "results/data/digits.json"


def test_only_the_default_is_taken_away(checkout: Checkout):
    told = '    without_rate_limit()\n    print("LIMIT", workflow.scheduler.job_rate_limiter)\n'
    checkout.edit("Snakefile", "    without_rate_limit()\n", told)
    assert "LIMIT None" in checkout.build(TARGET, "--config", "scale=smoke")
    checkout.path(TARGET).unlink()
    asked = checkout.build(TARGET, "--max-jobs-per-timespan", "100/1m", "--config", "scale=smoke")
    assert "LIMIT <" in asked
