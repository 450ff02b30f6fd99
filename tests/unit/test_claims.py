"""Every claim that a computation decides: it comes out as the ledger says, and each of its numbers can fail."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest

from ghostgrad.claims.comparison import SIGMAS, Comparison, verdict
from ghostgrad.claims.judge import comparisons, judge
from ghostgrad.registry.claim import VERDICTS, count_verdicts
from ghostgrad.registry.registry import load_registry
from ghostgrad.theory.activations import ACTIVATIONS, maxpool_backward, relu_maxpool_forward
from ghostgrad.theory.quadrature import LAWS, Law
from tests.unit import evidence
from tests.unit.evidence import Computed
from tests.unit.fabricate import publish

REGISTRY = load_registry()
# test_training_claims.py holds these
TRAINED = {"cifar_sweep", "vgg_statistics", "plain_depth", "resnet15_cifar", "imagenet", "imagenet_init"}
CLAIMS = [
    claim
    for claim in REGISTRY.claims.values()
    if claim.computed and not TRAINED & {run.partition("/")[0] for run in claim.runs}
]
# By how much a number is moved, relative to itself (or absolute where it is 0): by this, or by a little more than what
# the statement's own tolerance and the few repeats of these tests leave open, but never by more than MOST.
STEP, MOST = 0.05, 0.8


@pytest.fixture(scope="module", autouse=True)
def shared(tmp_path_factory, worker_id):
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "evidence"
    folder.mkdir(exist_ok=True)
    evidence.FOLDER[:] = [folder]
    yield
    evidence.FOLDER.clear()


@cache
def found(claim_id: str) -> tuple[list[Comparison], list[str]]:
    computed = Computed()
    return comparisons(REGISTRY.claims[claim_id], computed), computed.used


def expected(claim) -> str:
    return "holds as corrected" if claim.corrected else "holds"


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.id)
def test_its_verdict_is_the_ledgers(claim):
    """`corrected` stands in the ledger exactly where the paper's number is wrong."""
    assert verdict(found(claim.id)[0]) == expected(claim)


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.id)
def test_it_names_the_runs_that_decide_it(claim):
    """What the ledger lists is what Snakemake waits for."""
    used = {path.split("/runs/")[1].rsplit("-s", 1)[0] for path, _ in found(claim.id)[1]}
    assert used == set(claim.runs)


def moved(one: Comparison, name: str, relation: str) -> Comparison:
    """The comparison with its number moved away from ours, or for a bound to the wrong side of it."""
    number = getattr(one, name)
    slack = 1.2 * (one.tolerance + SIGMAS * one.se)
    if relation == "=":
        size = abs(number) if abs(number) > 1e-9 else 1.0
        step = max(STEP * size, slack)
        assert step <= MOST * size, "the evidence says too little"
        return replace(one, **{name: number - step if one.ours > number else number + step})
    beyond = max(abs(one.ours) * STEP, 0.01, slack)
    return replace(one, **{name: one.ours - beyond if relation in ("<", "<=") else one.ours + beyond})


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.id)
def test_another_number_changes_its_verdict(claim):
    """Each number that the verdict rests on, one at a time."""
    all_of_them = found(claim.id)[0]
    for index, one in enumerate(all_of_them):
        if expected(claim) == "holds" or one.corrected is None:
            if one.paper is None:
                continue
            other = moved(one, "paper", one.relation)
        else:
            other = moved(one, "corrected", one.corrected_relation)
        changed = [*all_of_them[:index], other, *all_of_them[index + 1 :]]
        assert verdict(changed) != verdict(all_of_them), one


# A mechanism taken away: run -> spec keys; the claim is then not what it was.
MECHANISMS = {
    "ghost.prop3_17": {"scaled_resnet_init/depth-20": {"branch_scale": "1"}},
    "E-G12": {"operators/module-tied-k2": {"tied": False}},
    "lalc.claims": {"networks_init/mlp-layernorm-relu": {"norm": "batch"}},
    "E-B7": {"preact_init/blocks-10": {"activation": "linear"}},
    "E-B13": {"resnet15_init/model2-xavier": {"batch_norm": False}},
    "E-B14": {"resnet15_init/model3-xavier": {"init": "he_normal"}},
    "ghost.prop3_4": {"operators/linear-k4": {"correlation": 0.5}},
    "ghost.cor3_7": {"operators/bn-128": {"norm": "none"}},
    "ghost.prop3_8": {"operators/bn-128": {"correlation": 0.5}},
    "ghost.cor3_15": {"plainnet_init/relu-bn": {"norm": "none"}},
    "ghost.prop4_1": {"operators/module-tied-k2": {"tied": False}},
    "ghost.fc_module": {"seqnet_init/k2-r": {"module_init": "untied"}},
    "E-G3": {"plainnet_init/relu-bn": {"norm": "none"}},
    "E-G6": {"plainnet_init/relu": {"norm": "batch"}},
    "E-G7": {"plainnet_init/tanh": {"norm": "batch"}},
    "E-G8": {"operators/bn-16": {"correlation": 0.5}},
    "E-G11": {"operators/module-small-k2": {"weight_scale": 2}},
    "E-G17": {"seqnet_init/k2-l": {"module_init": "random"}},
    "lalc.thm2": {"rectified/correlated": {"correlation": 0}},
    "lalc.rate": {"plainnet_init/relu-bn": {"norm": "none"}},
    "E-L9": {"networks_init/mlp-layernorm-gelu": {"norm": "batch"}},
    "bnres.eq13": {"plainnet_init/relu-bn": {"activation": "linear"}},
    "bnres.eq22": {"preact_init/blocks-10": {"activation": "linear"}},
    "bnres.eq40": {"preact_init/blocks-10": {"activation": "linear"}},
    "X1": {"plainnet_init/relu-bn": {"activation": "linear"}},
    "X2": {"plainnet_init/relu": {"norm": "batch"}},
    "X4": {"rectified/correlated": {"correlation": 0}},
    "ghost.c2_conceal": {"conceal/plainnet20": {"lr": 1e-6}},
    "ghost.c3": {"plainnet_init/relu-bn": {"activation": "linear"}},
    "E-G9": {"scaled_resnet_init/depth-80": {"branch_scale": "1"}},
    "E-G10": {f"resnet_init/depth-{depth}": {"net": "plain"} for depth in (20, 40, 80)},
    "E-G27": {
        f"{net}/selu{bn}": {"activation": "relu"} for net in ("plainnet_init", "plainnet_wide") for bn in ("", "-bn")
    },
    "ghost.rem3_9": {"plainnet_dependence/relu-bn": {"norm": "none"}},
    "bnres.eq22_conv": {f"preact_conv_init/{init}": {"batch_norm": False} for init in ("he", "xavier")},
    "ghost.def3_1": {"plainnet_init/relu-bn": {"width": 8}},
    "ghost.s6_vgg_input": {"vgg_input/resnet50-zero-gamma": {"zero_init_residual": False}},
    "E-G25": {"vgg_input/resnet50-zero-gamma": {"zero_init_residual": False}},
    "bnres.eq21": {"preact_init/blocks-10": {"activation": "linear"}},
}


@pytest.mark.parametrize("name", MECHANISMS)
def test_without_its_mechanism_it_is_another_claim(name):
    """BN taken away, ties cut, correlations brought in."""
    claim = REGISTRY.claims[name]
    assert verdict(comparisons(claim, Computed(MECHANISMS[name]))) != expected(claim)


def tanh_of(law: Law) -> SimpleNamespace:
    """Var and E[s'^2] of Tanh of another law than the Gaussian."""
    slope = law.mean(lambda x: (1 - math.tanh(x) ** 2) ** 2)
    return SimpleNamespace(variance=law.mean(lambda x: math.tanh(x) ** 2), slope=slope)


# The same of formulas: what is replaced in the claim's module, and by what.
UNRECTIFIED = ("ACTIVATIONS", {**ACTIVATIONS, "ReLU": ACTIVATIONS["Linear"]})
ASYMMETRIC = ("LAWS", {"Gaussian": Law("exponential", lambda x: math.exp(-1 - x) if x > -1 else 0.0, 40.0)})
DEPENDENT = ("elements", lambda rng, batch, count: np.repeat(rng.normal(size=(batch, 1)), count, axis=1))
UNCENTRED = ("_bn", lambda x, gamma: gamma * x / np.sqrt((x * x).mean()))
FORMULAS = {
    "lalc.prop1": UNRECTIFIED,
    "lalc.thm1": UNRECTIFIED,
    "lalc.cor1": ("rectified", lambda x: (x, np.ones_like(x))),
    "E-L3": UNRECTIFIED,
    "ghost.eq1": UNRECTIFIED,
    "ghost.relu_ratios": UNRECTIFIED,
    "E-G1": UNRECTIFIED,
    "bnres.eq4": UNCENTRED,
    "bnres.eq5": UNCENTRED,
    "bnres.eq8": UNRECTIFIED,
    "bnres.eq9": UNRECTIFIED,
    "bnres.disc": UNRECTIFIED,
    "E-B2": UNRECTIFIED,
    "E-G26": ("relu_maxpool_backward", maxpool_backward),
    "ghost.c1_maxpool": ("maxpool_forward", relu_maxpool_forward),
    "E-G14": ("rectified", lambda x: x),
    "bnres.eq10": DEPENDENT,
    "bnres.eq11": DEPENDENT,
    "bnres.eq12": ("passes", np.ones_like),
    "bnres.K": ("squared_sums", lambda *shape: (np.random.default_rng(0).uniform(-1, 1, shape) ** 2).sum(2)),
    "ghost.rem3_16": ("between_layers", lambda x: np.maximum(x, 0.0)),
    "ghost.prop3_12": ("ACTIVATIONS", {"Tanh": tanh_of(LAWS["uniform"])}),
    "ghost.prop3_14": ASYMMETRIC,
    "ghost0.propB_14": ASYMMETRIC,
    "ghost.propC_2": ASYMMETRIC,
    "X3": ASYMMETRIC,
}
# Claims in which nothing can be taken away, and why.
NO_MECHANISM = {
    **dict.fromkeys(("bnres.appE", "E-B9"), "inequalities of numbers"),
    **dict.fromkeys(("E-L1", "E-B12", "E-G21"), "arithmetic"),
    **dict.fromkeys(("E-L6", "E-L7"), "both rules are computed side by side"),
    **dict.fromkeys(("bnres.indep", "bnres.eq19", "bnres.eq37"), "sums over independently drawn weights"),
    **dict.fromkeys(("E-G4", "E-G5"), "numbers of one law"),
    "ghost.rem3_5": "it says that dependence does not matter; ghost.prop3_4 brings it in",
    "lalc.cor2": "a bound of normal inputs, far from where ReLU acts",
    "E-L4": "of ReLU; E-L3 takes it away",
}


@pytest.mark.parametrize("name", FORMULAS)
def test_without_its_nonlinearity_a_formula_is_another(name, monkeypatch):
    """ReLU made linear, BN without its centring, a pool without the ReLU before it."""
    claim = REGISTRY.claims[name]
    monkeypatch.setattr(f"ghostgrad.claims.{claim.module}.{FORMULAS[name][0]}", FORMULAS[name][1])
    assert verdict(comparisons(claim, Computed())) != expected(claim)


def test_what_is_not_corrected_is_the_papers():
    """Else the comparison could not fail."""
    assert not [one for c in CLAIMS if not c.corrected for one in found(c.id)[0] if one.paper is None]


def test_every_claim_has_a_mechanism_or_a_reason():
    """An alias has that of its source."""
    sources = {(claim.module, claim.function) for claim in CLAIMS}
    known = {*MECHANISMS, *FORMULAS, *NO_MECHANISM}
    assert {(claim.module, claim.function) for claim in CLAIMS if claim.id in known} == sources
    assert known <= {claim.id for claim in CLAIMS}


def test_editorial_claims():
    by_id = REGISTRY.claims
    told, numbers, quoted = judge(REGISTRY, by_id["E-G15"], "laptop")
    assert (told, numbers) == ("editorial", [])
    assert "R-Init is better than O-Init and R-Init" in quoted


def test_a_claim_without_its_runs_is_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert judge(REGISTRY, REGISTRY.claims["X1"], "laptop")[0] == "not run (no finished run)"


def test_a_claim_with_some_of_its_blocks_is_not_run(tmp_path, monkeypatch):
    """Three of four blocks of 1,024 repeats: more may come, and the verdict would be another one's."""
    monkeypatch.chdir(tmp_path)
    runs = REGISTRY.claim_runs("paper", REGISTRY.claims["X1"])
    assert len(runs) == 4
    for run in runs[:3]:
        publish(run)
    assert judge(REGISTRY, REGISTRY.claims["X1"], "paper")[0] == "not run (no finished run)"


def test_counts_count_claims():
    rows = [{"id": "a", "verdict": "holds"}] * 3 + [{"id": "b", "verdict": "not run (x will decide it)"}]
    assert count_verdicts(rows) == "1 holds, 1 not run"
    assert VERDICTS == ("holds", "holds as corrected", "fails", "editorial", "not run")
