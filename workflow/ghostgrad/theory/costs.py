"""Weight layers and multiply-adds of SeqNet50 and ResNet50 for an image of 224 x 224, from their definitions."""

from __future__ import annotations

BLOCKS, WIDTHS, MAPS = (3, 4, 6, 3), (64, 128, 256, 512), (56, 28, 14, 7)
STEM, CLASSIFIER = 112**2 * 49 * 3 * 64, 2048 * 1000


def seqnet50() -> tuple[int, int]:
    """Of SeqBottle blocks: 3x3 d -> 2d, 1x1 2d -> d, 1x1 d -> 4d, 1x1 4d -> out (Ghost sec. 4.2, app. B.2).

    A stage's first block pools behind its 3x3, which so runs on the larger map; its last block's output has the next
    stage's width.
    """
    layers, total = 2, STEM + CLASSIFIER
    for stage, (blocks, d, side) in enumerate(zip(BLOCKS, WIDTHS, MAPS, strict=True)):
        for block in range(blocks):
            before = 2 * side if stage and block == 0 else side
            out = (*WIDTHS, 2048)[stage + 1] if block == blocks - 1 else d
            total += before**2 * 9 * d * 2 * d + side**2 * (2 * d * d + d * 4 * d + 4 * d * out)
            layers += 4
    return layers, total


def resnet50() -> tuple[int, int]:
    """Of bottleneck blocks: 1x1 to d, 3x3, 1x1 to 4d, and a 1x1 shortcut in each stage's first; the 3x3 strides. The
    shortcuts are not counted as layers."""
    layers, total, into = 2, STEM + CLASSIFIER, 64
    for stage, (blocks, d, side) in enumerate(zip(BLOCKS, WIDTHS, MAPS, strict=True)):
        for block in range(blocks):
            before = 2 * side if stage and block == 0 else side
            total += before**2 * into * d + side**2 * (9 * d * d + d * 4 * d)
            total += side**2 * into * 4 * d if block == 0 else 0
            layers, into = layers + 3, 4 * d
    return layers, total
