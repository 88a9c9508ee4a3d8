"""Complex weights step as their real and imaginary parts do: the inner product is Re(conj(a) b)."""

import pytest
import torch
from torch import nn

from ncsam import NCSAM
from tests.ncsam.methods_like_sam import LIKE_SAM

INPUTS = torch.randn(16, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
TARGETS = torch.arange(16) % 3
METHODS = {
    # ASAM scales by |w|, which parts have not
    **{
        name: lambda *parts, kind=kind: kind(*parts, rho=0.3)
        for name, kind in LIKE_SAM.items()
        if name != "asam"
    },
    "ncsam": lambda *parts: NCSAM(
        *parts, rho=0.3, flip_ratio=0.4, strength=0.2, warmup=0.0, schedule="constant"
    ),
}


class Complex(nn.Module):
    """Outputs |x W| + b, with W a complex parameter or the two parts of one."""

    def __init__(self, in_parts):
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        parts = torch.randn(5, 3, 2, dtype=torch.float64, generator=generator)
        self.weight = nn.Parameter(parts if in_parts else torch.view_as_complex(parts))
        self.bias = nn.Parameter(torch.zeros(3, dtype=torch.float64))
        self.in_parts = in_parts

    def forward(self, inputs):
        weight = torch.view_as_complex(self.weight) if self.in_parts else self.weight
        return (inputs.to(weight.dtype) @ weight).abs() + self.bias


def trained(name, in_parts):
    model = Complex(in_parts)
    method = METHODS[name](model, nn.CrossEntropyLoss())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        method.backward(INPUTS, TARGETS)
        optimizer.step()
    weight = model.weight.detach()
    return weight if in_parts else torch.view_as_real(weight), model.bias.detach()


@pytest.mark.parametrize("name", METHODS)
def test_complex_weights_step_as_their_parts_do(name):
    torch.testing.assert_close(trained(name, in_parts=False), trained(name, in_parts=True))
