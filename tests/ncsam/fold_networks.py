"""Networks that are trained on digits with planted wrong labels."""

import torch
from torch import nn

from ncsam import Plain, build_model


def build(data):
    def of_fold(fold):
        model = build_model("mlp", data.input_shape, data.num_classes, seed=fold, hidden=[64])
        method = Plain(model, nn.CrossEntropyLoss())
        return method, torch.optim.SGD(method.parameters(), lr=0.05, momentum=0.9)

    return of_fold
