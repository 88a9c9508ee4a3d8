"""Networks of some dozen weights, and dense Jacobians and Hessians of their samples in float64."""

import numpy as np
import torch
from torch import nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from tests.conftest import flat

D = torch.float64
FEW = 4


def dense(model, loss_fn, inputs, targets):
    """All measures of each sample, one after the other."""
    named = {name: p.detach() for name, p in model.eval().named_parameters()}
    theta = flat(model)

    def outputs(point, x):
        parts = point.split([p.numel() for p in named.values()])
        weights = {n: part.view(p.shape) for (n, p), part in zip(named.items(), parts, strict=True)}
        return functional_call(model, weights, (x,))

    rows, gradients = [], []
    hessian, jacobian = torch.autograd.functional.hessian, torch.autograd.functional.jacobian
    with sdpa_kernel(SDPBackend.MATH):
        for i in range(len(inputs)):
            x, y = inputs[i : i + 1], targets[i : i + 1]
            scores = outputs(theta, x).detach()
            J = jacobian(lambda point, x=x: outputs(point, x)[0], theta)
            M = hessian(lambda z, y=y: loss_fn(z, y), scores)[0, :, 0, :]
            p = scores[0].softmax(0)
            H = hessian(lambda point, x=x, y=y: loss_fn(outputs(point, x), y), theta)
            H_input = torch.zeros(1, 1)
            if x.is_floating_point():
                H_input = hessian(lambda x, y=y: loss_fn(outputs(theta, x), y), x)
                H_input = H_input.reshape(x.numel(), x.numel())
            gradients.append(jacobian(lambda point, x=x, y=y: loss_fn(outputs(point, x), y), theta))
            rows.append(
                {
                    "loss": loss_fn(scores, y).item(),
                    "gauss_newton_trace": (J.T @ M @ J).trace().item(),
                    "fisher_trace": (J.T @ (torch.diag(p) - torch.outer(p, p)) @ J).trace().item(),
                    "hessian_trace": H.trace().item(),
                    "input_trace": H_input.trace().item(),
                    "input_curvature": H_input.square().sum().item(),
                }
            )
    found = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    gradients = torch.stack(gradients)
    found["gradient_norm"] = gradients.norm(dim=1).numpy()
    found["gradient_cosine"] = torch.cosine_similarity(gradients, gradients.mean(0, keepdim=True)).numpy()
    return found


class Normalized(nn.Module):
    """Tokens, an embedding, LayerNorm and an output from each."""

    def __init__(self):
        super().__init__()
        self.embedding, self.inner = nn.Embedding(5, 3), nn.Linear(3, 3)
        self.norm, self.head = nn.LayerNorm(3), nn.Linear(3, 3)

    def forward(self, x):
        return self.head(self.norm(torch.tanh(self.inner(self.embedding(x)))).mean(1))


class Tied(nn.Module):
    """One matrix in two layers."""

    def __init__(self):
        super().__init__()
        self.inner, self.head = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x):
        x = x.flatten(1)[:, :4]
        return self.head(torch.tanh(self.inner(torch.tanh(self.inner(x)))))


def build(name):
    """A network of some dozen weights, so that unit vectors are few, with 37 samples in float64."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        images = torch.randn(37, 1, 4, 4, dtype=D)
        targets = torch.randint(0, 3, (37,))
        model = {
            "mlp": lambda: nn.Sequential(nn.Flatten(), nn.Linear(16, 3), nn.Tanh(), nn.Linear(3, 3)),
            "cnn": lambda: nn.Sequential(
                *(nn.Conv2d(1, 3, 2), nn.BatchNorm2d(3), nn.GELU(), nn.Dropout(0.5)),
                *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 3)),
            ),
            "tied": Tied,
            "layer-norm": Normalized,
        }[name]()
        if name == "cnn":
            model[1].running_mean.uniform_(-0.2, 0.2)
            model[1].running_var.uniform_(0.5, 2)
    return model.double(), images, targets


def few(name):
    model, inputs, targets = build(name)
    return model, inputs[:FEW], targets[:FEW]


def generalized_cross_entropy(outputs, targets):
    """Not convex in the outputs: its Gauss-Newton matrix has negative eigenvalues."""
    chances = outputs.softmax(1).gather(1, targets.unsqueeze(1))
    return ((1 - chances**0.7) / 0.7).mean()


LOSSES = {
    "cross-entropy": nn.CrossEntropyLoss(),
    "smoothed": nn.CrossEntropyLoss(label_smoothing=0.2),
    "generalized": generalized_cross_entropy,
}
