"""Small networks with an independent truth, shared by the tests."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from landscape.matrices import faster_way, products

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Layers that a test makes start alike, and no way to products is known, whichever tests ran before it."""
    torch.manual_seed(0)
    faster_way._TRACED_IS_FASTER.clear()


@pytest.fixture
def direct_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is traced but where a test asks for it: for small networks that takes longer than all their products."""
    monkeypatch.setattr(products, "pays", lambda *_, **__: False)


def build(name: str) -> tuple[nn.Module, Tensor, Tensor]:
    """A small model with 37 samples (prime: no chunk size divides it) in float64."""
    generator = torch.Generator().manual_seed(3)
    targets = torch.randint(0, 3, (37,), generator=generator)
    images = torch.randn(37, 2, 6, 6, generator=generator, dtype=torch.float64)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model: nn.Module
        if name == "mlp":
            model = nn.Sequential(nn.Flatten(), nn.Linear(72, 5), nn.Tanh(), nn.Linear(5, 3))
        elif name == "relu-mlp":
            model = nn.Sequential(nn.Flatten(), nn.Linear(72, 6), nn.ReLU(), nn.Linear(6, 3))
        elif name == "cnn-batchnorm-dropout":
            model = nn.Sequential(
                nn.Conv2d(2, 4, 3),
                nn.BatchNorm2d(4),
                nn.GELU(),
                nn.Dropout(0.5),
                nn.AdaptiveAvgPool2d(2),
                nn.Flatten(),
                nn.Linear(16, 3),
            )
            model[1].running_mean.uniform_(-0.2, 0.2)
            model[1].running_var.uniform_(0.5, 2)
        elif name == "tied":
            model = Tied()
        elif name == "attention":
            model = Attention()
        elif name == "unreached":
            model = nn.Sequential(nn.Flatten(), nn.Linear(72, 3))
            model.register_parameter("unused", nn.Parameter(torch.ones(4)))
        else:
            raise ValueError(name)
    return model.double(), images, targets


def some_vectors(n: int, k: int = 3, dtype: torch.dtype = torch.float64) -> Tensor:
    """A block of random vectors (n, k), the same at each call."""
    return torch.randn(n, k, dtype=dtype, generator=torch.Generator().manual_seed(0))


def rescaled_relu_network(factor: float) -> tuple[nn.Module, nn.Module, tuple[Tensor, Tensor]]:
    """(model, loss, data): the same function for every factor, with other weights."""
    model, inputs, targets = build("relu-mlp")
    with torch.no_grad():
        for parameter in model[1].parameters():
            parameter.mul_(factor)
        model[3].weight.div_(factor)
    return model, nn.CrossEntropyLoss(), (inputs, targets)


class Recurrent(nn.Module):
    """The last output of a recurrent layer, such as an LSTM, of 4 inputs."""

    def __init__(self, layer: type[nn.RNNBase]) -> None:
        super().__init__()
        self.layer, self.head = layer(4, 3, batch_first=True), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.head(self.layer(x)[0][:, -1])
        return outputs


class Tied(nn.Module):
    """One weight matrix in two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(6, 6)
        self.again = nn.Linear(6, 6)
        self.again.weight = self.inner.weight
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.again(torch.tanh(self.inner(x[:, 0, 0])))))


class Attention(nn.Module):
    """Tokens, embedded, one encoder layer: scaled dot product attention, LayerNorm, Dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 4)
        self.encoder = nn.TransformerEncoderLayer(4, 2, dim_feedforward=6, batch_first=True)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        tokens = (x[:, 0, 0] * 2).long().clamp(-2, 2) + 2
        return self.head(self.encoder(self.embedding(tokens)).mean(1))


MODEL_NAMES = ("mlp", "relu-mlp", "cnn-batchnorm-dropout", "tied", "unreached", "attention")


@pytest.fixture(params=MODEL_NAMES)
def case(request: pytest.FixtureRequest) -> tuple[nn.Module, Tensor, Tensor]:
    """(model, inputs, targets), for each of the small networks."""
    return build(request.param)


def loss_of_vector(model: nn.Module, inputs: Tensor, targets: Tensor) -> Callable[[Tensor], Tensor]:
    """The mean cross-entropy over all samples at once, as a function of the flat weights."""
    model.eval()
    named = dict(model.named_parameters())

    def loss(theta: Tensor) -> Tensor:
        parts = theta.split([p.numel() for p in named.values()])
        weights = {n: part.view(p.shape) for (n, p), part in zip(named.items(), parts, strict=True)}
        return nn.functional.cross_entropy(functional_call(model, weights, (inputs,)), targets)

    return loss


def flat(model: nn.Module) -> Tensor:
    """The model's weights as one vector."""
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def dense_hessian(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    """The Hessian of the mean cross-entropy, by torch.autograd.functional, independent of the package."""
    with sdpa_kernel(SDPBackend.MATH):
        return torch.autograd.functional.hessian(loss_of_vector(model, inputs, targets), flat(model))


def dense_gauss_newton(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    """The mean of J^T (diag p - p p^T) J, the Jacobians by autograd."""
    theta = flat(model)
    named = dict(model.named_parameters())

    def outputs(point: Tensor) -> Tensor:
        parts = point.split([p.numel() for p in named.values()])
        weights = {n: part.view(p.shape) for (n, p), part in zip(named.items(), parts, strict=True)}
        return functional_call(model.eval(), weights, (inputs,))

    with sdpa_kernel(SDPBackend.MATH):
        jacobian = torch.autograd.functional.jacobian(outputs, theta)
        p = outputs(theta).softmax(1).detach()
    curvature = torch.diag_embed(p) - p.unsqueeze(2) * p.unsqueeze(1)
    return torch.einsum("icn,icd,idm->nm", jacobian, curvature, jacobian) / len(inputs)
