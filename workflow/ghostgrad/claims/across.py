"""Where papers, or two versions of one, contradict each other, one function per contradiction.

The statements are in workflow/claims/across.yaml. `reference` is the number of the paper whose
statement is judged, `corrected` that of the others or, in X2, what we measure.
"""

from __future__ import annotations

from collections.abc import Iterator

from ghostgrad.claims import ghost
from ghostgrad.claims.comparison import Comparison, Relation, from_estimate, growth
from ghostgrad.claims.evidence import Evidence
from ghostgrad.claims.ghost_curves import EXPLODING
from ghostgrad.theory.activations import RELU_GROWTH_RATE


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


def x3(evidence: Evidence) -> Iterator[Comparison]:
    """The proofs of Ghost Prop. 3.14 and of Prop. B.14 in its tiny-paper version."""
    yield from ghost.prop3_14(evidence)
