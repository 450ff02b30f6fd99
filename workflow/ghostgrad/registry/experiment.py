"""Experiments: families of runs that share a task and a base spec, and how their settings merge.

Scales merge as base < scales.X < axes or variant < adjust < variant.scales.X, so that what a
variant sets survives the scale. Imports neither torch nor pandas.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterator, Mapping
from fnmatch import fnmatch
from functools import cache, cached_property
from typing import Any, TypeAlias

from ghostgrad.checks import InputError, nearest, validate
from ghostgrad.registry.compatibility import check_together, check_weights
from ghostgrad.registry.spec import RunSpec
from ghostgrad.registry.specs.detect import DetectSpec
from ghostgrad.registry.tasks import TASKS

Layer: TypeAlias = Mapping[str, Any]
"""One block of parameters and settings, as YAML has it."""

# Keys that are merged at every level and never enter the spec.
SETTINGS = ("seeds", "resources", "expect", "optional")
# Parameters that may differ from the paper's scale without making a cell incomparable: more repeats
# have the same mean.
REPLICATION = ("repeats", "seed")


class Experiment:
    """A family of runs that share a task and a base spec."""

    def __init__(
        self,
        name: str,
        body: Mapping[str, Any],
        where: str,
        upstream: Callable[[str, str, str], RunSpec],
    ):
        """`upstream(scale, id, place)` is the registry's run with that id, whose weights a run
        starts from."""
        self.name, self.body, self.where, self._upstream = name, body, where, upstream
        self.publishes_weights: bool = body.get("publish_weights", False)
        self.task: str = body["task"]
        self._spec = TASKS[self.task].spec
        if self.publishes_weights and not TASKS[self.task].publishing_rule:
            raise InputError(
                f"{where}: publish_weights: task {self.task} cannot publish weights; leave it out"
            )
        self.section: str = body["section"]
        self.deviations: list[dict[str, str]] = body.get("deviations", [])
        # Blocks are read once; the merge of every variant at every scale looks them up by identity,
        # which is safe because `body` holds them as long as the experiment lives.
        self._parameters_of: dict[int, dict[str, Any]] = {}
        for place, layer, other_keys in self._layers():
            spec = self._parameters(layer, other_keys, place)
            self._parameters_of[id(layer)] = spec
            if "seed" in spec:
                raise InputError(
                    f"{place}: 'seed' is the number of each run; set seeds to how many there are"
                )
            validate(spec, self._spec.schema(), place, partial=True)
        if not self.variants:
            raise InputError(f"{where}: has no variants; give variants or axes")
        for name, variant in self._variants.items():
            if (like := variant.get("like")) and like not in self._variants:
                hint = nearest(like, self._variants)
                raise InputError(f"{where}.variants.{name}.like: no variant '{like}'{hint}")
        self._check_adjust()

    def _parameters(
        self, layer: Mapping[str, Any], others: Collection[str], place: str = ""
    ) -> dict[str, Any]:
        """The parameters in a block, under the names of the spec's fields; `others` are keys of the
        block that are no parameters."""
        written = {key: value for key, value in layer.items() if key not in others}
        return self._spec.renamed(written, place)

    def _check_adjust(self) -> None:
        """A misspelt axis or point would match nothing, silently."""
        axes = self.body.get("axes", {})
        for index, rule in enumerate(self.body.get("adjust", [])):
            place = f"{self.where}.adjust.{index}.where"
            for axis, points in rule["where"].items():
                if axis not in axes:
                    raise InputError(f"{place}: no axis '{axis}'{nearest(axis, axes)}")
                for point in points:
                    if point not in axes[axis]:
                        raise InputError(
                            f"{place}.{axis}: no point '{point}'{nearest(point, axes[axis])}"
                        )

    def _layers(self) -> Iterator[tuple[str, Layer, tuple[str, ...]]]:
        """Every block of spec keys, with its place and the other keys that may stand in it, for
        validation."""
        yield f"{self.where}.base", self.body["base"], ()
        for index, rule in enumerate(self.body.get("adjust", [])):
            yield f"{self.where}.adjust.{index}.set", rule["set"], SETTINGS
        blocks: list[tuple[str, Layer, tuple[str, ...]]] = [
            (f"{self.where}.variants.{name}", body, ("like",))
            for name, body in self._variants.items()
        ]
        for axis, points in self.body.get("axes", {}).items():
            blocks += [
                (f"{self.where}.axes.{axis}.{name}", body, ()) for name, body in points.items()
            ]
        for place, body, like in blocks:
            yield place, body, (*SETTINGS, "scales", *like)
            for scale, layer in body.get("scales", {}).items():
                yield f"{place}.scales.{scale}", layer, SETTINGS
        for scale, layer in self.body.get("scales", {}).items():
            yield f"{self.where}.scales.{scale}", layer, (*SETTINGS, "only")

    @cached_property
    def _variants(self) -> Mapping[str, Layer]:
        return {name: body or {} for name, body in self.body.get("variants", {}).items()}

    @cached_property
    def _points(self) -> Mapping[str, Mapping[str, str]]:
        """Variant name -> {axis: point}, for the experiments with axes."""
        axes = self.body.get("axes", {})
        if not axes:
            return {}
        combinations = itertools.product(*axes.values())
        return {"-".join(points): dict(zip(axes, points, strict=True)) for points in combinations}

    def point(self, variant: str) -> Mapping[str, str]:
        """{axis: point} of a variant that comes from axes; empty for a named one."""
        return self._points.get(variant, {})

    @cached_property
    def variants(self) -> tuple[str, ...]:
        return (*self._variants, *self._points)

    @cache  # noqa: B019  as below
    def variants_at(self, scale: str) -> tuple[str, ...]:
        """The variants that this scale runs; only `paper` runs without being named in `scales`."""
        scales = self.body.get("scales", {})
        if scale not in scales and scale != "paper":
            return ()
        only = (scales.get(scale) or {}).get("only")
        if only is None:
            return self.variants
        for pattern in only:
            if not any(fnmatch(name, pattern) for name in self.variants):
                place = f"{self.where}.scales.{scale}.only"
                hint = nearest(pattern, self.variants)
                raise InputError(f"{place}: no variant like '{pattern}'{hint}")
        return tuple(
            name for name in self.variants if any(fnmatch(name, pattern) for pattern in only)
        )

    def _chain(self, variant: str) -> list[Layer]:
        """The settings of the variant, preceded by those of the variants that it is `like`."""
        if variant in self._points:
            points = self._points[variant]
            return [self.body["axes"][axis][point] or {} for axis, point in points.items()]
        body, chain, seen = self._variants[variant], [], {variant}
        chain.append(body)
        while like := body.get("like"):
            if like in seen:
                raise InputError(
                    f"{self.where}.variants.{variant}: like: '{like}' leads back to itself"
                )
            seen.add(like)
            body = self._variants[like]
            chain.insert(0, body)
        return chain

    def _adjustments(self, points: Mapping[str, str]) -> list[Layer]:
        rules = self.body.get("adjust", [])
        return [
            rule["set"]
            for rule in rules
            if all(points[axis] in names for axis, names in rule["where"].items())
        ]

    def merge(self, variant: str, scale: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """Merged spec (without seed) and settings of a variant at a scale."""
        own = self._chain(variant)
        at_scale = [layer.get("scales", {}).get(scale) or {} for layer in own]
        if points := self._points.get(variant):
            own = [*own, *self._adjustments(points), *at_scale]
        else:  # in a chain of `like`, what a variant sets survives the scale of the one it is like
            own = [layer for pair in zip(own, at_scale, strict=True) for layer in pair]
        layers = [
            self.body["base"],
            {key: self.body[key] for key in SETTINGS if key in self.body},
            self.body.get("scales", {}).get(scale) or {},
            *own,
        ]
        spec: dict[str, Any] = {}
        settings: dict[str, Any] = {"seeds": 1, "resources": {}, "expect": {}, "optional": False}
        for layer in layers:
            spec.update(self._parameters_of.get(id(layer), {}))
            for key in ("seeds", "optional"):
                settings[key] = layer.get(key, settings[key])
            for key in ("resources", "expect"):
                settings[key] = {**settings[key], **layer.get(key, {})}
        return spec, settings

    @cache  # noqa: B019  one registry per process
    def runs(self, scale: str, variant: str) -> tuple[RunSpec, ...]:
        """The variant's runs, one per seed; none where the scale leaves it out."""
        if variant not in self.variants_at(scale):
            return ()
        merged, settings = self.merge(variant, scale)
        place = f"{self.where}.variants.{variant} at scale {scale}"
        # The layers are valid each by itself: a merge can only lack a parameter, or hold two that
        # do not fit each other.
        if missing := next((name for name in self._spec.required() if name not in merged), None):
            raise InputError(f"{place}: key '{missing}' is missing")
        spec = self._spec.expand({**merged, "seed": 0})
        check_together(spec, settings["resources"].get("gpu", 0), place)
        upstream = None
        if isinstance(spec, DetectSpec) and spec.weights:
            upstream = self._upstream(scale, spec.weights, place)
            check_weights(spec, upstream.spec, place)
        return tuple(
            RunSpec(
                scale=scale,
                experiment=self.name,
                variant=variant,
                seed=seed,
                task=self.task,
                spec=spec.with_seed(seed),
                canonical=self._spec.canonical_json({**merged, "seed": seed}),
                resources=settings["resources"],
                expect=settings["expect"],
                optional=settings["optional"],
                publishes_weights=self.publishes_weights,
                upstream=upstream,
            )
            for seed in range(int(settings["seeds"]))
        )

    def scaled(self, variant: str, scale: str) -> dict[str, Any]:
        """The parameters, other than repeats and seed, that the scale sets differently from the
        paper; only cells without any get a verdict."""
        ours, paper = (
            self._spec.expand({**self.merge(variant, at)[0], "seed": 0}).values()
            for at in (scale, "paper")
        )
        return {
            key: value
            for key, value in ours.items()
            if key not in REPLICATION and value != paper[key]
        }
