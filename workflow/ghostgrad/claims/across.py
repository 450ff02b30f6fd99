"""Where the papers contradict each other; see workflow/claims/across.yaml."""

from __future__ import annotations

from collections.abc import Iterator

from ghostgrad.claims import bnres, lalc
from ghostgrad.claims.comparison import Comparison
from ghostgrad.claims.evidence import Evidence
from ghostgrad.theory import propositions
from ghostgrad.theory.quadrature import LAWS


def x1(e: Evidence) -> Iterator[Comparison]:
    value, se = e.rate("plainnet_init/relu-bn", "backward_variance")
    yield Comparison(
        "factor of the gradient's variance per layer of BN, ReLU, weight", value, 1.0, bnres.C, se=se, tolerance=0.015
    )


def x2(e: Evidence) -> Iterator[Comparison]:
    for name in ("relu", "tanh", "selu"):
        for suffix in ("-bn", ""):
            value, se = e.rate(f"plainnet_init/{name}{suffix}")
            # above 1 by more than a net of width 256 leaves open; ReLU without BN stays at 1
            corrected = (
                {"corrected": 1.0} if name + suffix == "relu" else {"corrected": 1.02, "corrected_relation": ">"}
            )
            label = f"factor per layer, {name}{' with BN' if suffix else ''}"
            yield Comparison(label, value, 1.02, se=se, tolerance=0.005, relation=">", **corrected)


def x3(_: Evidence) -> Iterator[Comparison]:
    law = LAWS["Gaussian"]
    gap, mean = propositions.shifted_relu_gap(law, 0.0), law.absolute_mean
    more = {"relation": ">=", "corrected_relation": ">="}
    yield Comparison("gap of a Gaussian against E|x|/4 and (E|x|)^2/8", gap, mean / 4, mean**2 / 8, **more)


def x4(e: Evidence) -> Iterator[Comparison]:
    yield lalc.truncated(e, lalc.C, "<")
