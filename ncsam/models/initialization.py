"""Initial weights, drawn as in the publications."""

from __future__ import annotations

from torch import nn


def he_normal(model: nn.Module) -> nn.Module:
    """Draws the weights of all convolutions from N(0, 2 / fan_out), sets their biases to 0, and returns the model.

    With this variance the backward signal keeps its size (He et al. 2015, arXiv:1502.01852, eq. 14).
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return model
