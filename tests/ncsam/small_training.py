"""A training on digits that takes a moment, by any method."""

import torch
from torch import nn

from ncsam import (
    NCSAM,
    PES,
    SAM,
    SOP,
    AUMFilter,
    CoTeaching,
    DivideMix,
    EarlyLearningRegularization,
    ELRPlus,
    FriendlySAM,
    LookSAM,
    Plain,
    RegCE,
    StochasticLabelNoise,
    build_model,
    fit,
)

loss_fn = nn.CrossEntropyLoss()


def prepare(dataset, kind="ncsam", model="mlp", learning_rate=0.05):
    options = {"mlp": {"hidden": (32,)}, "cnn": {"channels": (8, 16)}}[model]
    network = build_model(model, dataset.input_shape, dataset.num_classes, seed=0, **options)
    if kind == "dropout":
        network = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.Dropout(0.5), nn.Linear(32, 10))
        with torch.no_grad():
            for p in network.parameters():
                p.copy_(torch.randn(p.shape, generator=torch.Generator().manual_seed(0)) * 0.1)
    peer = build_model(model, dataset.input_shape, dataset.num_classes, seed=1, **options)
    method = {
        "plain": lambda: Plain(network, loss_fn),
        "elr": lambda: Plain(network, EarlyLearningRegularization(len(dataset.train), 10)),
        "sln": lambda: SAM(network, StochasticLabelNoise(len(dataset.train), 10), rho=0.1),
        "friendly-sam": lambda: FriendlySAM(network, loss_fn, rho=0.1),
        "co-teaching": lambda: CoTeaching(network, loss_fn, peer=peer, forget_rate=0.4),
        "float16": lambda: SAM(network, loss_fn, rho=0.1),
        "dropout": lambda: SAM(network, loss_fn, rho=0.1),
        "sop": lambda: SOP(network, loss_fn, samples=len(dataset.train), seed=0, scale=0.1),
        "looksam": lambda: LookSAM(network, loss_fn, rho=0.1),
        "regce": lambda: RegCE(network, loss_fn),
        "pes": lambda: PES(network, loss_fn, first=0.17, second=0.34, third=0.17, latter=1),
        "elr-plus": lambda: ELRPlus(network, loss_fn, peer=peer, samples=len(dataset.train), seed=0),
        "dividemix": lambda: DivideMix(network, loss_fn, peer=peer, seed=0, warmup=0.4),
        "aum-filter": lambda: AUMFilter(network, loss_fn, peer=peer, samples=len(dataset.train), removed=0.4),
        "sam": lambda: SAM(network, loss_fn, rho=0.1),
        "ncsam": lambda: NCSAM(network, loss_fn, rho=0.1, flip_ratio=0.4, strength=0.1),
    }[kind]()
    if kind == "float16":
        method.passes.autocast_dtype = torch.float16
        method.passes.scaler = torch.amp.GradScaler("cpu", growth_interval=7)
    optimizer = torch.optim.SGD(method.parameters(), lr=learning_rate, momentum=0.9)
    return method, optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=6)


def train(digits, kind="ncsam", epochs=6, model="mlp", learning_rate=0.05, **options):
    dataset, labels = digits
    method, optimizer, scheduler = prepare(dataset, kind, model, learning_rate)
    history = fit(
        method,
        optimizer,
        dataset.train,
        labels,
        dataset.test,
        epochs=epochs,
        batch_size=128,
        seed=0,
        scheduler=scheduler,
        **options,
    )
    return history, method
