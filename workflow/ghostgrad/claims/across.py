"""Where the papers contradict each other, one function per contradiction.

The statements are in workflow/claims/across.yaml. `reference` is the number of the paper whose
statement is judged, `corrected` that of the others.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ghostgrad.claims.comparison import Comparison, Relation, average, from_estimate, growth
from ghostgrad.claims.evidence import Evidence
from ghostgrad.theory import propositions
from ghostgrad.theory.activations import RELU_GROWTH_RATE
from ghostgrad.theory.quadrature import LAWS

# Growth by a half over 20 layers, which counts as an explosion.
EXPLODING = 1.02


def x1(evidence: Evidence) -> Iterator[Comparison]:
    """BN-ResNet sec. 3.3, BN keeps the gradients of plain nets, against the other papers."""
    rate = evidence.growth_rate("plainnet_init/relu-bn", "backward_variance")
    name = "factor of the gradient's variance per layer of BN, ReLU, weight"
    # 5 % of the excess over 1, for the width of 256 and the batch of 128.
    yield growth(name, rate, 1.0, RELU_GROWTH_RATE)


def x2(evidence: Evidence) -> Iterator[Comparison]:
    """Ghost app. A, the nonlinearity and not BN makes gradients explode."""
    for name in ("relu", "tanh", "selu"):
        for suffix, with_bn in (("-bn", " with BN"), ("", "")):
            rate = evidence.growth_rate(f"plainnet_init/{name}{suffix}")
            corrected: Relation = "<" if name == "relu" and not suffix else ">"
            yield from_estimate(
                f"factor per layer, {name}{with_bn}",
                rate,
                EXPLODING,
                EXPLODING,
                relation=">",
                corrected_relation=corrected,
            )


def x3(_: Evidence) -> Iterator[Comparison]:
    """The proofs of Ghost Prop. 3.14 and of Prop. B.14 in its tiny-paper version."""
    for law in LAWS.values():
        gap, mean = propositions.shifted_relu_gap(law, 0.0), law.absolute_mean
        yield Comparison(f"gap, {law.name}", gap, mean / 4, mean**2 / 4, relation=">=")


def x4(evidence: Evidence) -> Iterator[Comparison]:
    """LALC Thm. 2 against Thm. 1, whether the former explains a decrease of the gradient.

    E[S] diverges for Gaussian W, so that its sample mean would have no standard error. The mean of
    min(S, 100) bounds it from below.
    """
    values = np.minimum(evidence.samples("rectified/correlated", "S"), 100.0)
    yield average(
        "E of min(S, 100) over W",
        values,
        RELU_GROWTH_RATE,
        RELU_GROWTH_RATE,
        relation="<",
        corrected_relation=">",
        tolerance=1e-6,  # single precision
    )
