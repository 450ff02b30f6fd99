"""Random faults in random order do not damage any result.

Every job ends exactly once with the bytes of an undisturbed run, and never runs twice at a time.
"""

from __future__ import annotations

import pytest

from tests.slurm.chaos import KILLING, Campaign

pytestmark = pytest.mark.slurm


@pytest.mark.parametrize(
    ("jobs", "faults"),
    [(20, 10), pytest.param(60, 500, marks=pytest.mark.long)],
    ids=["short", "long"],
)
def test_a_campaign(training, jobs, faults):
    flow = training(jobs=jobs, steps=20, seconds=0.5 if jobs == 20 else 6.0)
    campaign = Campaign(flow, seed=jobs, faults=faults)
    print(
        dict(campaign.run(patience=600 if jobs == 20 else 9000)),
        flow.repeated_ends(),
        "repeated ends",
    )
    assert flow.problems(campaign.injected.total()) == []
    assert flow.repeated_ends() <= sum(campaign.injected[kind] for kind in KILLING)
    assert campaign.injected.total() == faults
