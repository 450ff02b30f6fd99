"""Update rules of the LALC paper (001 sec. 3, app. B) and of those that it compares with.

Per tensor: w its weights, g the gradient of the mini-batch's mean loss, beta the weight decay, mu the momentum, gamma
the learning rate of this update, eta the trust coefficient, |.| the Euclidean norm.

sgd     m <- mu m + g + beta w; w <- w - gamma h; h = m, or g + beta w + mu m (Nesterov).
lars    lambda = eta |w| / (|g| + beta |w|); m <- mu m + gamma lambda (g + beta w); w <- w - m (You et al. 2017).
clars   as lars, with the mean over the samples i of |g_i| in the place of |g|, and beta |w| in the denominator only
        with `decay_in_trust` (Huo et al. 2021).
larc    g' = min(lambda / gamma, 1) (g + beta w) with lars's lambda, then sgd's rule on g' without decay (apex).
lalc    m <- mu m + g + beta w; lambda = eta |w| / |h|; w <- w - min(gamma, lambda) h, h as in sgd. `raw_norm`, the
        paper's ablation: lambda = eta |w| / (|g| + beta |w|).
lamb    m <- mu m + (1 - mu) g; v <- beta2 v + (1 - beta2) g^2; u = m^ / (sqrt(v^) + eps) + beta w with the
        bias-corrected m^ and v^; w <- w - gamma |w| / |u| u (You et al. 2019).

Where a norm is 0 the rule is that of the learning rate alone (lambda = 1; lalc: gamma; larc, as apex: g' = g,
undecayed): else what begins at 0, such as every beta of BN, would stay there under lars, clars and lalc. With
`adapt_vectors: false` tensors of one dimension follow the learning rate alone.

All tensors of a group are updated together; their norms come to the host once per update.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ghostgrad.checks import InputError, nearest
from ghostgrad.registry.specs.classify import ClassifySpec


def norms(tensors: Sequence[Tensor]) -> list[float]:
    """Euclidean norm of each."""
    return torch.stack(torch._foreach_norm(tensors)).tolist()


def add(y: Sequence[Tensor], x: Sequence[Tensor], scales: Sequence[float]) -> None:
    """y <- y + scale x, each tensor with its own. On a GPU launches cost most, on a CPU passes over memory do."""
    if y[0].is_cuda:
        torch._foreach_add_(y, torch._foreach_mul(x, scales))
        return
    for to, what, scale in zip(y, x, scales, strict=True):
        to.add_(what, alpha=scale)


class Layerwise(torch.optim.Optimizer):
    """An update rule with a rate of its own for every tensor; options as in the module, per group.

    `clipped` is the fraction of the tensors whose rate the last update held below the learning rate.
    """

    def __init__(self, groups: list[dict[str, Any]], lr: float, **options: Any):
        super().__init__(groups, {"lr": lr, **options})
        self.clipped = 0.0

    @torch.no_grad()
    def step(self) -> None:
        below = total = 0
        for group in self.param_groups:
            w = [p for p in group["params"] if p.grad is not None]
            if w:
                below += self.update(group, w, [p.grad for p in w])
                total += len(w)
        self.clipped = below / max(1, total)

    def update(self, group: dict[str, Any], w: list[Tensor], g: list[Tensor]) -> int:
        """Update the tensors of one group; how many were held below the learning rate."""
        raise NotImplementedError

    def buffers(self, w: list[Tensor], name: str = "momentum_buffer") -> list[Tensor]:
        for p in w:
            if name not in self.state[p]:
                self.state[p][name] = torch.zeros_like(p)
        return [self.state[p][name] for p in w]


def trust(group: dict[str, Any], w: list[float], below: list[float], otherwise: float) -> list[float]:
    """eta |w| / `below` of each tensor; `otherwise` where either is 0 and of exempt tensors."""
    if not group["adapted"]:
        return [otherwise] * len(w)
    eta = group["trust_coefficient"]
    return [eta * a / b if a and b else otherwise for a, b in zip(w, below, strict=True)]


def decayed(group: dict[str, Any], w: list[Tensor], g: list[Tensor]) -> list[Tensor]:
    """g + beta w, in memory of its own."""
    return torch._foreach_add(g, w, alpha=group["weight_decay"])


def raw_norms(group: dict[str, Any], w: list[float], g: list[float]) -> list[float]:
    """|g| + beta |w| of each tensor."""
    return [b + group["weight_decay"] * a for a, b in zip(w, g, strict=True)]


class LARS(Layerwise):
    """Layer-wise adaptive rate scaling."""

    def update(self, group: dict[str, Any], w: list[Tensor], g: list[Tensor]) -> int:
        m, rates = self.buffers(w), self.rates(group, w, g)
        torch._foreach_mul_(m, group["momentum"])
        add(m, g, [group["lr"] * rate for rate in rates])
        add(m, w, [group["lr"] * rate * group["weight_decay"] for rate in rates])
        torch._foreach_sub_(w, m)
        return sum(rate < 1 for rate in rates)

    def rates(self, group: dict[str, Any], w: list[Tensor], g: list[Tensor]) -> list[float]:
        """lambda of each tensor."""
        found = norms([*w, *g])
        of_w, of_g = found[: len(w)], found[len(w) :]
        return trust(group, of_w, raw_norms(group, of_w, of_g), 1.0)


class CLARS(LARS):
    """LARS with the mean norm of the samples' gradients, given as `sample_norms`, by parameter, before every step."""

    sample_norms: Mapping[Tensor, float]

    def rates(self, group: dict[str, Any], w: list[Tensor], g: list[Tensor]) -> list[float]:
        of_w, below = norms(w), [self.sample_norms[p] for p in w]
        if group["decay_in_trust"]:
            below = raw_norms(group, of_w, below)
        return trust(group, of_w, below, 1.0)


class LARC(Layerwise):
    """Layer-wise adaptive rate clipping, apex's with clip=True."""

    def update(self, group: dict[str, Any], w: list[Tensor], g: list[Tensor]) -> int:
        found = norms([*w, *g])
        of_w, of_g = found[: len(w)], found[len(w) :]
        rates = trust(group, of_w, raw_norms(group, of_w, of_g), group["lr"])
        guarded = [not (a and b) and group["adapted"] for a, b in zip(of_w, of_g, strict=True)]
        step = [a.clone() if skip else b for a, b, skip in zip(g, decayed(group, w, g), guarded, strict=True)]
        torch._foreach_mul_(step, [min(rate / group["lr"], 1.0) if group["lr"] else 1.0 for rate in rates])
        m = self.buffers(w)
        torch._foreach_mul_(m, group["momentum"])
        torch._foreach_add_(m, step)
        if group["nesterov"]:
            torch._foreach_add_(step, m, alpha=group["momentum"])
        torch._foreach_add_(w, step if group["nesterov"] else m, alpha=-group["lr"])
        return sum(rate < group["lr"] for rate in rates)


class LALC(Layerwise):
    """Layer-wise asymptotic learning-rate clipping: the whole step is held, behind the buffer."""

    def update(self, group: dict[str, Any], w: list[Tensor], g: list[Tensor]) -> int:
        m = self.buffers(w)
        torch._foreach_mul_(m, group["momentum"])
        torch._foreach_add_(m, g)
        torch._foreach_add_(m, w, alpha=group["weight_decay"])
        h = m
        if group["nesterov"]:
            h = decayed(group, w, g)
            torch._foreach_add_(h, m, alpha=group["momentum"])
        found = norms([*w, *(g if group["raw_norm"] else h)])
        of_w, below = found[: len(w)], found[len(w) :]
        if group["raw_norm"]:
            below = raw_norms(group, of_w, below)
        rates = trust(group, of_w, below, group["lr"])
        add(w, h, [-min(group["lr"], rate) for rate in rates])
        return sum(rate < group["lr"] for rate in rates)


class LAMB(Layerwise):
    """Adam's direction, scaled to the tensor's norm."""

    def update(self, group: dict[str, Any], w: list[Tensor], g: list[Tensor]) -> int:
        mu, beta2 = group["momentum"], group["beta2"]
        for p in w:
            self.state[p]["t"] = self.state[p].get("t", 0) + 1
        counts = [self.state[p]["t"] for p in w]
        m, v = self.buffers(w, "mean"), self.buffers(w, "square")
        torch._foreach_lerp_(m, g, 1 - mu)
        torch._foreach_mul_(v, beta2)
        torch._foreach_addcmul_(v, g, g, 1 - beta2)
        below = torch._foreach_div(v, [1 - beta2**t for t in counts])
        torch._foreach_sqrt_(below)
        torch._foreach_add_(below, group["adam_eps"])
        u = torch._foreach_div(m, [1 - mu**t for t in counts])
        torch._foreach_div_(u, below)
        torch._foreach_add_(u, w, alpha=group["weight_decay"])
        found = norms([*w, *u])
        ratios = trust({**group, "trust_coefficient": 1.0}, found[: len(w)], found[len(w) :], 1.0)
        torch._foreach_mul_(u, [group["lr"] * ratio for ratio in ratios])
        torch._foreach_sub_(w, u)
        return sum(ratio < 1 for ratio in ratios)


NORMS = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.LayerNorm)
RULES: dict[str, type[Layerwise]] = {"lars": LARS, "clars": CLARS, "larc": LARC, "lalc": LALC, "lamb": LAMB}


def optimizer(spec: ClassifySpec, model: nn.Module) -> torch.optim.Optimizer:
    """The rule that a classify spec names, over all of the model's parameters."""
    groups = parameter_groups(
        model, spec.weight_decay, spec.weight_decay_on, spec.lr_scales, spec.adapt_vectors
    )
    if spec.optimizer == "sgd":
        return torch.optim.SGD(
            groups, lr=spec.lr, momentum=spec.momentum, nesterov=spec.nesterov, foreach=True
        )
    return RULES[spec.optimizer](
        groups,
        spec.lr,
        momentum=spec.momentum,
        nesterov=spec.nesterov,
        trust_coefficient=spec.trust_coefficient,
        decay_in_trust=spec.decay_in_trust,
        raw_norm=spec.raw_norm,
        beta2=spec.beta2,
        adam_eps=spec.adam_eps,
    )


def resume(optimizer: torch.optim.Optimizer, saved: Mapping[str, Any]) -> None:
    """Put a state_dict's tensors and counts into an optimizer; the groups' options stay the spec's, so that a state
    from before an option was added fits too."""
    options = [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
    optimizer.load_state_dict(saved)
    for group, mine in zip(optimizer.param_groups, options, strict=True):
        members = group["params"]
        group.clear()
        group.update(params=members, **mine)


def parameter_groups(
    model: nn.Module,
    weight_decay: float,
    weight_decay_on: Literal["all", "weights", "all_but_norms"],
    lr_scales: Mapping[str, float],
    adapt_vectors: bool = True,
) -> list[dict[str, Any]]:
    """Groups of parameters that differ in weight decay, in `scale`, which multiplies their learning
    rate, and in `adapted`, whether a layer-wise rule gives them a rate of their own. InputError for a
    learning-rate scale that names no parameter."""
    layers = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
    weights = {id(m.weight) for m in model.modules() if isinstance(m, layers)}
    norms = {id(p) for m in model.modules() if isinstance(m, NORMS) for p in m.parameters()}
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    names = [name for name, _ in trained]
    for prefix in lr_scales:
        if not any(name.startswith(prefix) for name in names):
            raise InputError(f"lr_scales: no parameter begins with '{prefix}'{nearest(prefix, names)}")
    groups: dict[tuple[float, float, bool], list[Tensor]] = {}
    for name, parameter in trained:
        decays = {
            "all": True,
            "weights": id(parameter) in weights,
            "all_but_norms": id(parameter) not in norms,
        }
        decay = weight_decay if decays[weight_decay_on] else 0.0
        prefixes = [prefix for prefix in lr_scales if name.startswith(prefix)]
        scale = lr_scales[max(prefixes, key=len)] if prefixes else 1.0
        adapted = adapt_vectors or parameter.ndim > 1
        groups.setdefault((decay, scale, adapted), []).append(parameter)
    return [
        {"params": members, "weight_decay": decay, "scale": scale, "adapted": adapted}
        for (decay, scale, adapted), members in groups.items()
    ]
