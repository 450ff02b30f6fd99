"""The claims of the Ghost paper (002) that networks of images decide, one function each.

The statements and the runs are in workflow/claims/ghost_images.yaml. Accuracies are in percent,
and differences of two kinds of runs are those of their means over seeds.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from ghostgrad.analysis.statistics import Estimate, FloatArray, fit_growth_rate, mean_estimate
from ghostgrad.claims.comparison import (
    Comparison,
    Relation,
    between_seeds,
    from_estimate,
    over_seeds,
    paired_difference,
)
from ghostgrad.claims.evidence import Evidence

CLOSE = 0.5  # percent of accuracy, for what the paper calls close without a number
NETS = ("seqnet", "resnet")


def _accuracy(evidence: Evidence, net: str, metric: str = "test_accuracy") -> FloatArray:
    """Final validation accuracy of a network of the ImageNet experiment, (seeds,)."""
    return evidence.final(f"imagenet/{net}", metric)


def _difference(
    evidence: Evidence,
    first: str,
    second: str,
    relation: Relation = ">",
    tolerance: float = 0.0,
    metric: str = "test_accuracy",
) -> Comparison:
    """The accuracy of one network less that of another, against 0."""
    what = "validation" if metric == "test_accuracy" else "training"
    name = f"{what} accuracy, {first} less {second}, %"
    ours, other = (_accuracy(evidence, net, metric) for net in (first, second))
    return between_seeds(name, ours, other, relation=relation, tolerance=tolerance)


# --- fig. 1 right, app. C.2, sec. 6 ---


def vgg_trend(evidence: Evidence) -> Iterator[Comparison]:
    """Sec. 2.2 and app. C.1 and fig. 1 right, sigma of the BN layers of a trained VGG19."""
    sigma = evidence.column("vgg19_checkpoint/imagenet", "sigma")
    steps = -np.diff(np.log(sigma))  # toward the input: log sigma of layer k less that of k + 1
    behind_pools = (5, 9, 13)
    for layer in behind_pools:
        name = f"log sigma of layer {layer} less that of layer {layer + 1}"
        yield Comparison(name, float(steps[layer - 1]), 0.0, relation="<")
    share = float((np.delete(steps, [layer - 1 for layer in behind_pools]) > 0).mean())
    yield Comparison("share of the other steps at which sigma grows", share, 0.5, relation=">")
    rate = fit_growth_rate(sigma)
    yield Comparison("fitted factor of sigma per layer toward the input", rate, 1.0, relation=">")


def c2_conceal(evidence: Evidence) -> Iterator[Comparison]:
    """App. C.2, training turns exploding gradients into large weights, which BN conceals."""

    def change(quantity: str, index: int, over: int | None = None) -> FloatArray:
        """Log of a probed quantity after 5 steps over the same at initialization, (seeds,); with
        `over`, of the quotient of two places."""
        before, after = (evidence.probe("conceal/plainnet20", quantity, step) for step in (0, 5))
        logarithm: FloatArray = np.log(after / before)
        return logarithm[:, index] - (0 if over is None else logarithm[:, over])

    # Index -1 is the classifier, -2 the last hidden layer.
    changes: tuple[tuple[str, FloatArray, Relation], ...] = (
        ("first over last gradient norm", change("weight_gradient", 0, -2), "<"),
        ("norm of the first weight", change("weight_norm", 0), ">"),
        ("variance before the second BN", change("bn_variance", 1), ">"),
    )
    for name, values, relation in changes:
        name = f"log of the change in 5 steps, {name}"
        yield over_seeds(name, values, 0.0, relation=relation, tolerance=math.log(1.2))


def s6_vgg_input(evidence: Evidence) -> Iterator[Comparison]:
    """Sec. 6, the derivative with respect to the image, at initialization only.

    The paper cites an observation on trained networks. With zero gamma ResNet50 is a shallow net at
    initialization, and with gamma 1 it is not the ResNet of the usual recipe, so neither decides.
    """

    def log_growth(net: str) -> Estimate:
        """Log of the gradient's standard deviation at the image over that at the last BN, which
        does not depend on the scale of the classifier."""
        variances = evidence.layers(f"vgg_input/{net}", "gradient_variance")
        return mean_estimate(np.log(variances[:, 0] / variances[:, -1]) / 2)

    vgg = log_growth("vgg16")
    for gamma, net in ((0, "resnet50-zero-gamma"), (1, "resnet50")):
        name = f"log growth to the input, VGG16-BN less ResNet50 with gamma = {gamma}"
        difference = vgg.minus(log_growth(net))
        yield from_estimate(name, difference, 0.0, relation=">", extension=True)


# --- tables 1 and 2 ---


def tab1_reach(evidence: Evidence) -> Iterator[Comparison]:
    """Abstract and tab. 1, SeqNet50 against ResNet50."""
    yield _difference(evidence, "seqnet50", "resnet50", ">=", CLOSE)


def tab1_shallow(evidence: Evidence) -> Iterator[Comparison]:
    """Tab. 1, SeqNet18 and SeqNet34 against the ResNets of these names."""
    for depth in (18, 34):
        yield _difference(evidence, f"seqnet{depth}", f"resnet{depth}")


def tab1_plain(evidence: Evidence) -> Iterator[Comparison]:
    """Tab. 1, SeqNets against the numbers that the paper cites for other plain networks."""
    best = {18: 70.4, 34: 72.8, 50: 71.2, 101: 71.0}
    for depth, number in best.items():
        name = f"validation accuracy of SeqNet{depth}, %"
        yield over_seeds(name, _accuracy(evidence, f"seqnet{depth}"), number, relation=">")


def final_accuracy(evidence: Evidence) -> Iterator[Comparison]:
    """Sec. 5 and app. B.3, final accuracies of the deepest networks."""
    yield _difference(evidence, "seqnet101", "seqnet50", "<")
    yield _difference(evidence, "seqnet101", "resnet101", "<")
    pairs: tuple[tuple[str, str, Relation], ...] = (
        ("seqnet101", "seqnet50", "<"),
        ("seqnet50", "resnet50", ">"),
        ("seqnet101", "resnet101", "<"),
    )
    for first, second, relation in pairs:
        yield _difference(evidence, first, second, relation, metric="train_accuracy")


def tab2_comparable(evidence: Evidence) -> Iterator[Comparison]:
    """Tab. 2, Mask R-CNN with SeqNet50 against the printed rows of ResNet50."""
    rows = (
        ("2x", "BN", 38.6, 34.5),
        ("2x", "GN", 40.3, 35.7),
        ("3x", "GN", 40.8, 36.1),
    )
    for schedule, norm, *numbers in rows:
        for kind, number in zip(("box", "mask"), numbers, strict=True):
            name = f"{kind} AP of SeqNet50 {schedule.upper()} against ResNet50 {norm}"
            values = evidence.final(f"coco/seqnet50-{schedule}", f"{kind}_ap")
            yield over_seeds(name, values, number, relation=">=", tolerance=1.0)


# --- tables 3 to 5 ---


def tab3a_close(evidence: Evidence) -> Iterator[Comparison]:
    """Tab. 3a, the margin between the three initializations."""
    for other in ("seqnet50-orthogonal", "seqnet50-looks-linear"):
        yield _difference(evidence, "seqnet50", other, "~", CLOSE)


def tab3a_best(evidence: Evidence) -> Iterator[Comparison]:
    """Tab. 3a, R-Init against the two others."""
    for other in ("seqnet50-orthogonal", "seqnet50-looks-linear"):
        yield _difference(evidence, "seqnet50", other)


def tab3a_untied(evidence: Evidence) -> Iterator[Comparison]:
    """App. B.2, independent W and M."""
    values = _accuracy(evidence, "seqnet50-untied")
    yield over_seeds("validation accuracy of untied SeqNet50, %", values, 70.0, relation="<=")


def tab3b_worse(evidence: Evidence) -> Iterator[Comparison]:
    """Tab. 3b, a bias or BN before ReLU in SeqNet50."""
    for other in ("seqnet50-bias", "seqnet50-bn"):
        yield _difference(evidence, "seqnet50", other)


def tab3b_deep(evidence: Evidence) -> Iterator[Comparison]:
    """App. B.2, BN before ReLU in SeqNet101."""
    yield _difference(evidence, "seqnet101-bn", "seqnet101")


def tab3c_position(evidence: Evidence) -> Iterator[Comparison]:
    """Tab. 3c, the position of the 3x3 convolution."""
    yield _difference(evidence, "seqnet50", "seqnet50-second")
    yield _difference(evidence, "seqnet50", "seqnet50-third", "~", 0.3)


def tab4_gain(evidence: Evidence) -> Iterator[Comparison]:
    """Tab. 4, what orthogonal regularization gains."""
    for depth in (34, 50, 101):
        name = f"gain of orthogonal regularization, SeqNet{depth}, %"
        with_it, without = (_accuracy(evidence, f"seqnet{depth}{end}") for end in ("", "-free"))
        yield between_seeds(name, with_it, without, 0.5, relation=">")


def b2_resnet_orth(evidence: Evidence) -> Iterator[Comparison]:
    """App. B.2, what orthogonal regularization gains, seed by seed."""
    pairs = ("seqnet50", "seqnet50-free"), ("resnet50-orthogonal", "resnet50")
    seqnet_gain, resnet_gain = (
        paired_difference(*(_accuracy(evidence, net) for net in pair)) for pair in pairs
    )
    name = "gain of SeqNet50 less that of ResNet50, %"
    yield between_seeds(name, seqnet_gain, resnet_gain, relation=">")


def tab5_tying(evidence: Evidence) -> Iterator[Comparison]:
    """Tab. 5, weight tying in training."""
    yield _difference(evidence, "seqnet50", "seqnet50-tied-none")
    yield _difference(evidence, "seqnet50-tied-both", "seqnet50", "<")


# --- app. B.1: learning rates ---


def lr_seqnet34(evidence: Evidence) -> Iterator[Comparison]:
    """App. B.1, the grid search for SeqNet34."""
    for lr in ("0.01", "0.02", "0.08"):
        yield _difference(evidence, "seqnet34", f"seqnet34-lr{lr}")


def lr_seqnet101(evidence: Evidence) -> Iterator[Comparison]:
    """App. B.1, a smaller learning rate for the third stage only of SeqNet101."""
    yield _difference(evidence, "seqnet101", "seqnet101-lr0.01")


# --- fig. 4: gradients ---


def _weight_gradient_rates(evidence: Evidence, variant: str, epoch: float) -> FloatArray:
    """Fitted factor per convolution toward the input of the weights' gradient norms, (seeds,).

    The stem is left out.
    """
    norms = evidence.probe(variant, "weight_gradient", epoch)[:, 1:]
    return np.array([fit_growth_rate(curve) for curve in norms])


def _stable(evidence: Evidence, net: str, variant: str, epoch: float) -> Iterator[Comparison]:
    """The growth of the gradient norm over the net, from the fitted factor, at most a factor of
    ten; beside it the norm of the first convolution, the stem, over that of the last."""
    norms = evidence.probe(variant, "weight_gradient", epoch)
    steps = norms.shape[1] - 2
    values = np.array([steps * math.log10(fit_growth_rate(curve)) for curve in norms[:, 1:]])
    yield over_seeds(f"log10 of the fitted growth, {net}", values, 1.0, relation="<=")
    name = f"log10 of the stem's over the last convolution's, {net}"
    whole = np.log10(norms[:, 0] / norms[:, -1])
    yield over_seeds(name, whole, 1.0, relation="<=", extension=True)


def init_growth(evidence: Evidence) -> Iterator[Comparison]:
    """Sec. 5 and fig. 4 left, growth of the gradient at initialization."""
    plain = _weight_gradient_rates(evidence, "imagenet_init/plainnet50", 0)
    for net in ("ResNet50", "SeqNet50"):
        other = _weight_gradient_rates(evidence, f"imagenet_init/{net.lower()}", 0)
        name = f"growth a convolution, PlainNet50 less {net}"
        yield between_seeds(name, plain, other, relation=">")


def init_stable(evidence: Evidence) -> Iterator[Comparison]:
    """Sec. 5 and fig. 4 left, the nets whose gradient is stable at initialization."""
    for net in ("ResNet50", "SeqNet50"):
        yield from _stable(evidence, net, f"imagenet_init/{net.lower()}", 0)


def trained_growth(evidence: Evidence) -> Iterator[Comparison]:
    """Sec. 5 and fig. 4 right, growth of the gradient at epoch 50."""
    seqnet, resnet = (
        _weight_gradient_rates(evidence, f"imagenet/{net}", 50) for net in ("seqnet50", "resnet50")
    )
    name = "growth a convolution, SeqNet50 less ResNet50"
    yield between_seeds(name, seqnet, resnet, relation=">")


def trained_stable(evidence: Evidence) -> Iterator[Comparison]:
    """Sec. 5 and fig. 4 right, the gradient at epoch 50."""
    for net in ("ResNet50", "SeqNet50"):
        yield from _stable(evidence, net, f"imagenet/{net.lower()}", 50)


# --- app. A and B.3: learning curves ---


def a_depth(evidence: Evidence) -> Iterator[Comparison]:
    """App. A, the largest trainable depth."""
    for depth in (40, 80):
        selu, relu = (
            evidence.final(f"plain_depth/{name}-{depth}", "train_accuracy")
            for name in ("selu", "relu")
        )
        name = f"training accuracy at {depth} layers, SELU less ReLU, %"
        yield between_seeds(name, selu, relu, relation=">")


def _between(evidence: Evidence, net: str, after: float, until: float) -> FloatArray:
    """Mean training accuracy of an ImageNet network between two epochs, (seeds,)."""
    return evidence.mean_accuracy(f"imagenet/{net}", "train_accuracy", after, until)


def convergence(evidence: Evidence) -> Iterator[Comparison]:
    """App. B.3 and fig. 7 and 8, who is ahead in the first epochs and who after 10."""
    spans: tuple[tuple[int, int, Relation], ...] = ((0, 2, ">"), (10, 20, "<"))
    for depth in (50, 101):
        for after, until, relation in spans:
            seqnet, resnet = (_between(evidence, f"{net}{depth}", after, until) for net in NETS)
            nets = f"SeqNet{depth} less ResNet{depth}"
            name = f"training accuracy, epochs {after} to {until}, {nets}, %"
            yield between_seeds(name, seqnet, resnet, relation=relation)


def gap_closes(evidence: Evidence) -> Iterator[Comparison]:
    """App. B.3 and fig. 7 and 8, the gap of training accuracy in the middle of training."""
    for depth in (50, 101):
        seqnet, resnet = (
            _between(evidence, f"{net}{depth}", 40, 60)
            - _between(evidence, f"{net}{depth}", 10, 20)
            for net in NETS
        )
        nets = f"SeqNet{depth} less ResNet{depth}"
        name = f"gain in training accuracy from epochs 10 to 20 to epochs 40 to 60, {nets}, %"
        yield between_seeds(name, seqnet, resnet, relation=">")


def skip(evidence: Evidence) -> Iterator[Comparison]:
    """Fig. 9, Skip-SeqNet50 against SeqNet50 over the whole training."""
    for column, what in (("train_accuracy", "training"), ("test_accuracy", "validation")):
        with_skip, without = (
            evidence.mean_accuracy(f"imagenet/{net}", column, 0, 100)
            for net in ("seqnet50-skip", "seqnet50")
        )
        name = f"mean {what} accuracy, Skip-SeqNet50 less SeqNet50, %"
        yield between_seeds(name, with_skip, without, relation=">")
    yield _difference(evidence, "seqnet50-skip", "seqnet50")
