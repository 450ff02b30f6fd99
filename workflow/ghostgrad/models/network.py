"""What every image network of this package has: logits, and places where gradients are probed."""

from __future__ import annotations

from torch import Tensor, nn


class ProbedNetwork(nn.Module):
    """Images (N, 3, H, W) -> logits (N, classes)."""

    def outputs(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The logits and the outputs y_0, y_1, … at which gradients are probed, in the order in
        which they are computed. All are part of the graph of the logits."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        return self.outputs(x)[0]
