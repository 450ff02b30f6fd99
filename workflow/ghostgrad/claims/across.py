"""Where the papers contradict each other, one function per contradiction.

The statements are in workflow/claims/across.yaml. The number of the contradicting paper is given as
"paper", that of the others as "corrected".
"""

from __future__ import annotations

from collections.abc import Iterator

from ghostgrad.claims import lalc
from ghostgrad.claims.comparison import Comparison, Relation
from ghostgrad.claims.evidence import Evidence
from ghostgrad.theory import propositions
from ghostgrad.theory.activations import RELU_GROWTH_RATE
from ghostgrad.theory.quadrature import LAWS


def x1(evidence: Evidence) -> Iterator[Comparison]:
    """BN-ResNet sec. 3.3, BN keeps the gradients of plain nets, against the other papers."""
    value, se = evidence.growth_rate("plainnet_init/relu-bn", "backward_variance")
    name = "factor of the gradient's variance per layer of BN, ReLU, weight"
    yield Comparison(name, value, 1.0, RELU_GROWTH_RATE, se=se, tolerance=0.015)


def x2(evidence: Evidence) -> Iterator[Comparison]:
    """Ghost app. A, the nonlinearity and not BN makes gradients explode."""
    above: Relation = ">"
    equal: Relation = "="
    for name in ("relu", "tanh", "selu"):
        for suffix, with_bn in (("-bn", " with BN"), ("", "")):
            value, se = evidence.growth_rate(f"plainnet_init/{name}{suffix}")
            # A net of width 256 leaves open a factor slightly above 1, so that an explosion has to
            # be above 1.02. Only ReLU without BN stays at 1.
            corrected, relation = 1.02, above
            if name == "relu" and not suffix:
                corrected, relation = 1.0, equal
            yield Comparison(
                f"factor per layer, {name}{with_bn}",
                value,
                1.02,
                corrected,
                se=se,
                tolerance=0.005,
                relation=">",
                corrected_relation=relation,
            )


def x3(_: Evidence) -> Iterator[Comparison]:
    """The constants of Ghost Prop. 3.14 and of Prop. B.14 in its tiny-paper version."""
    law = LAWS["Gaussian"]
    gap, mean = propositions.shifted_relu_gap(law, 0.0), law.absolute_mean
    yield Comparison(
        "gap of a Gaussian against E|x|/4 and (E|x|)^2/8",
        gap,
        mean / 4,
        mean**2 / 8,
        relation=">=",
        corrected_relation=">=",
    )


def x4(evidence: Evidence) -> Iterator[Comparison]:
    """LALC Thm. 2 against Thm. 1, whether correlation turns explosion into vanishing."""
    yield lalc.compare_correlated_amplification(evidence, RELU_GROWTH_RATE, "<")
