"""Mask R-CNN on our backbones, against torchvision's own."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision.models.detection import maskrcnn_resnet50_fpn

from ghostgrad.checks import InputError
from ghostgrad.models import mask_rcnn
from ghostgrad.registry.spec import expand
from ghostgrad.registry.specs.base import Spec
from ghostgrad.tasks.detect import new_optimizer, synchronize_batch_norm
from ghostgrad.training.distributed import SINGLE_PROCESS, ProcessGroup
from tests.unit.detection import SPEC

CHANNELS = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
FULL = {"model": "resnet50", "data": "coco", "batch": 2, "length": 1, "lr": 0.02, "seed": 0}


def detector(classes: int = 10, **keys) -> tuple[Spec, nn.Module]:
    own = {key: value for key, value in SPEC.items() if key != "task"}
    spec = expand("detect", {**(own if "model" not in keys else FULL), **keys})
    return spec, mask_rcnn.build_detector(
        spec, mask_rcnn.build_classifier(spec, 1), classes, CHANNELS
    )


@pytest.fixture(scope="module")
def pair():
    """torchvision's model with random weights and running statistics, and ours with the same."""
    torch.manual_seed(0)
    sizes = {"min_size": 96, "max_size": 128}
    theirs = maskrcnn_resnet50_fpn(
        weights=None, weights_backbone=None, box_score_thresh=0.0, **sizes
    )
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_var.uniform_(0.5, 2)
            module.running_mean.uniform_(-0.5, 0.5)
    ours = detector(90, model="resnet50", heads="2fc", **sizes)[1]
    ours.roi_heads.score_thresh = 0.0
    values = [
        value
        for name, value in theirs.state_dict().items()
        if not name.endswith("num_batches_tracked")
    ]
    names = list(ours.state_dict())
    ours.load_state_dict(dict(zip(names, values, strict=True)))
    return theirs.double().eval(), ours.double().eval()


@pytest.mark.slow
def test_with_torchvisions_resnet50_it_is_torchvisions(pair):
    """The outputs agree to the rounding of float64; a frozen BN multiplies and adds in a different
    order."""
    x = [torch.rand(3, 90, 130).double(), torch.rand(3, 100, 80).double()]
    with torch.no_grad():
        theirs, ours = (model(x) for model in pair)
    for actual, expected in zip(ours, theirs, strict=True):
        assert len(actual["boxes"]) > 50
        assert actual.keys() == expected.keys()
        for name, value in actual.items():
            torch.testing.assert_close(value, expected[name], rtol=1e-9, atol=1e-9)


def test_its_losses_are_torchvisions_too(pair):
    """Both models use BN's running statistics and the same samples of anchors and regions."""
    target = {"boxes": torch.tensor([[10.0, 12, 60, 70]]).double(), "labels": torch.tensor([3])}
    target["masks"] = torch.zeros(1, 90, 130, dtype=torch.uint8)
    target["masks"][0, 12:70, 10:60] = 1
    x, losses = [torch.rand(3, 90, 130).double()], []
    for model in pair:
        model.train()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        torch.manual_seed(5)
        losses.append({name: value.item() for name, value in model(x, [target]).items()})
        model.eval()
    assert losses[0] == pytest.approx(losses[1], rel=1e-9)


@pytest.mark.parametrize(
    ("model", "widths"),
    [
        ("seqnet50", [128, 256, 512, 2048]),
        ("seqnet18", [128, 256, 512, 512]),
        ("resnet50", [256, 512, 1024, 2048]),
    ],
)
def test_the_pyramid_is_built_on_the_stages_outputs(model, widths):
    """Its levels have the sides of the four stages' outputs, the last one half of that, and
    `fpn_channels` channels. A level depends on the output of its own stage and on those of the
    later stages, which the pyramid adds from the top down."""
    spec, net = detector(model=model)
    body = net.backbone.body
    outputs = body(torch.randn(1, 3, 64, 64))
    assert [y.shape[1] for y in outputs.values()] == widths
    assert [y.shape[-1] for y in outputs.values()] == [16, 8, 4, 2]
    levels = net.backbone(torch.randn(1, 3, 64, 64))
    shapes = [(1, spec.fpn_channels, side, side) for side in (16, 8, 4, 2, 1)]
    assert [tuple(level.shape) for level in levels.values()] == shapes
    before = list(net.backbone.fpn(outputs).values())
    for stage in range(4):
        changed = {**outputs, str(stage): outputs[str(stage)] + 1}
        after = net.backbone.fpn(changed).values()
        moved = [not torch.equal(a, b) for a, b in zip(before, after, strict=True)]
        assert moved == [level <= stage or (level, stage) == (4, 3) for level in range(5)]


def test_a_relu_between_is_a_variant():
    """Without the ReLU, some outputs of a SeqNet's stages are negative, because the stages end in
    BN. With it, the outputs are the same, rectified."""
    plain, rectified = (
        detector(backbone_relu=relu)[1].backbone.body.eval() for relu in (False, True)
    )
    rectified.load_state_dict(plain.state_dict())
    x = torch.randn(2, 3, 32, 32)
    for y, with_relu in zip(plain(x).values(), rectified(x).values(), strict=True):
        assert (y < 0).any()
        assert torch.equal(with_relu, y.relu())


@pytest.mark.parametrize("model", ["seqnet50", "resnet50", "resnet50_gn"])
def test_what_is_trained_and_what_decays(model):
    """BN, the stem and the first stage are not trained. Every other tensor is in the optimizer
    once; those of normalizations have no weight decay."""
    spec, net = detector(model=model)
    body = net.backbone.body
    assert not any(isinstance(module, nn.BatchNorm2d) for module in body.modules())
    frozen = [*body.stem.parameters(), *body.stages[0].parameters()]
    assert frozen
    assert not any(p.requires_grad for p in frozen)
    groups = new_optimizer(spec, net).param_groups
    members = [id(p) for group in groups for p in group["params"]]
    assert sorted(members) == sorted(id(p) for p in net.parameters() if p.requires_grad)
    norms = {
        id(p)
        for m in net.modules()
        if isinstance(m, nn.GroupNorm)
        for p in m.parameters()
        if p.requires_grad
    }
    undecayed = {id(p) for group in groups if not group["weight_decay"] for p in group["params"]}
    assert undecayed == norms
    assert len(norms) > 10


def test_bn_behind_the_first_stage_may_be_trained():
    """With `backbone_norm: sync`, BN of the later stages is trained without weight decay, and over
    the images of all processes."""
    spec, net = detector(backbone_norm="sync")
    body = net.backbone.body
    norms = {
        name: module for name, module in body.named_modules() if isinstance(module, nn.BatchNorm2d)
    }
    assert {name[:8] for name in norms} == {"stages.1", "stages.2", "stages.3"}
    undecayed = {
        id(p)
        for g in new_optimizer(spec, net).param_groups
        if not g["weight_decay"]
        for p in g["params"]
    }
    assert all({id(module.weight), id(module.bias)} <= undecayed for module in norms.values())
    assert synchronize_batch_norm(net, torch.device("cpu"), SINGLE_PROCESS) is net
    with pytest.raises(InputError, match="backbone_norm: sync in several processes needs GPUs"):
        synchronize_batch_norm(net, torch.device("cpu"), ProcessGroup(0, 2))
    synchronized = synchronize_batch_norm(net, torch.device("cuda"), ProcessGroup(0, 2))
    assert not any(isinstance(module, nn.BatchNorm2d) for module in synchronized.modules())
    assert sum(isinstance(module, nn.SyncBatchNorm) for module in synchronized.modules()) == len(
        norms
    )
    frozen = detector()[1]
    assert synchronize_batch_norm(frozen, torch.device("cpu"), ProcessGroup(0, 2)) is frozen


def test_the_backbone_may_have_its_own_learning_rate():
    spec, net = detector(lr_scales={"backbone.body": 0.2})
    scales = {
        id(p): group["scale"]
        for group in new_optimizer(spec, net).param_groups
        for p in group["params"]
    }
    for name, p in net.named_parameters():
        if p.requires_grad:
            assert scales[id(p)] == (0.2 if name.startswith("backbone.body") else 1.0)
