"""Weight layers and multiply-adds of SeqNet50 and ResNet50, for one image of 224 x 224.

They are counted here from the definitions in the papers and not from `ghostgrad.models`, so that
the tests can hold the two against each other.
"""

from __future__ import annotations

from typing import NamedTuple

# The four stages of both networks: blocks, channels, and the side of the feature map in pixels.
STAGE_BLOCKS = (3, 4, 6, 3)
STAGE_CHANNELS = (64, 128, 256, 512)
STAGE_SIDES = (56, 28, 14, 7)
OUTPUT_CHANNELS = 2048
# The 7x7 convolution of 3 channels to 64 with stride 2, and the linear classifier of 1,000 classes.
STEM_MULTIPLY_ADDS = 112**2 * 49 * 3 * 64
CLASSIFIER_MULTIPLY_ADDS = OUTPUT_CHANNELS * 1000


class Cost(NamedTuple):
    """What a network costs: weight layers, and multiply-adds of one forward pass of one image."""

    layers: int
    multiply_adds: int


def seqnet50_cost() -> Cost:
    """The cost of SeqNet50, a sequence of SeqBottle blocks (Ghost sec. 4.2, app. B.2).

    A block of width d is 3x3 d -> 2d, 1x1 2d -> d, 1x1 d -> 4d, 1x1 4d -> out. The output of a
    stage's last block has the width of the next stage.
    """
    layers, total = 2, STEM_MULTIPLY_ADDS + CLASSIFIER_MULTIPLY_ADDS
    next_widths = (*STAGE_CHANNELS[1:], OUTPUT_CHANNELS)
    stages = zip(STAGE_BLOCKS, STAGE_CHANNELS, STAGE_SIDES, next_widths, strict=True)
    for stage, (blocks, d, side, next_width) in enumerate(stages):
        for block in range(blocks):
            # From the second stage on, the first block halves the map by a pool after its 3x3
            # convolution, which therefore still runs on the map of twice the side.
            input_side = 2 * side if stage and block == 0 else side
            out = next_width if block == blocks - 1 else d
            total += input_side**2 * 9 * d * 2 * d
            total += side**2 * (2 * d * d + d * 4 * d + 4 * d * out)
            layers += 4
    return Cost(layers, total)


def resnet50_cost() -> Cost:
    """The cost of ResNet50 with bottleneck blocks: 1x1 to d, 3x3 with the stride, 1x1 to 4d.

    The first block of each stage has a 1x1 convolution in its shortcut. By the usual count, which
    gives the network its name, shortcuts are not counted as layers; their multiply-adds are.
    """
    layers, total = 2, STEM_MULTIPLY_ADDS + CLASSIFIER_MULTIPLY_ADDS
    input_channels = 64
    stages = zip(STAGE_BLOCKS, STAGE_CHANNELS, STAGE_SIDES, strict=True)
    for stage, (blocks, d, side) in enumerate(stages):
        for block in range(blocks):
            # The stride is in the 3x3 convolution: the 1x1 before it runs on the larger map.
            input_side = 2 * side if stage and block == 0 else side
            total += input_side**2 * input_channels * d + side**2 * (9 * d * d + d * 4 * d)
            if block == 0:
                total += side**2 * input_channels * 4 * d
            layers += 3
            input_channels = 4 * d
    return Cost(layers, total)
