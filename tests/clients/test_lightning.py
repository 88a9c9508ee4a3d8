"""Lightning's Trainer with a method of the SAM family, and with a tracker, beside loops written by hand."""

from importlib.util import find_spec

import pytest
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.plugins import MixedPrecision
from lightning.pytorch.strategies import DDPStrategy
from torch import nn
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from landscape import Objective, Tracker
from landscape.tracking.lightning import LightningTracker
from ncsam import ASAM, GSAM, NCSAM, SAM
from ncsam.integrations.lightning import SharpnessAware, computed_by_the_loop
from tests.clients.quiet_trainer import quiet_trainer
from tests.clients.without_cuda import LIBRARY

METHODS = {
    "sam": (SAM, {"rho": 0.3}),
    "asam": (ASAM, {"rho": 0.3}),
    # puts its gradient together by hand
    "gsam": (GSAM, {"rho": 0.3, "alpha": 0.2}),
    "warmup": (SAM, {"rho": 0.3, "warmup": 0.5}),
}
EPOCHS, RATE = 2, 0.2


class Half(MixedPrecision):
    """The precision of loss scaling, which Lightning itself refuses on CPUs."""

    def __init__(self, precision, device):
        super().__init__("bf16-mixed", device)
        self.precision = precision


def data():
    generator = torch.Generator().manual_seed(0)
    return TensorDataset(
        torch.randn(32, 5, generator=generator), torch.randint(0, 3, (32,), generator=generator)
    )


def network():
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 3))


class Classifier(SharpnessAware, LightningModule):
    def __init__(self, method):
        super().__init__()
        self.net = network()
        self.method_name = method

    def configure_method(self):
        method, options = METHODS[self.method_name]
        return method(self, computed_by_the_loop, **options)

    def training_step(self, batch):
        loss = nn.functional.cross_entropy(self.net(batch[0]), batch[1])
        self.log("loss", loss, on_step=False, on_epoch=True)
        return loss

    def train_dataloader(self):
        ranks = torch.distributed.is_initialized()
        sampler = DistributedSampler(data(), shuffle=False) if ranks else None
        return DataLoader(data(), batch_size=8, sampler=sampler)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=RATE, momentum=0.9)


def trained(module, tmp_path, **options):
    trainer = quiet_trainer(tmp_path, EPOCHS, use_distributed_sampler=False, **options)
    trainer.fit(module)
    return trainer


def by_hand(name, *, accumulated=1, clip=None, autocast=None, ranks=1):
    """The network, and the mean loss at the unperturbed weights in the last epoch."""
    net = network()
    kind, options = METHODS[name]
    method = kind(net, nn.CrossEntropyLoss(), **options)
    method.passes.autocast_dtype = autocast
    optimizer = torch.optim.SGD(net.parameters(), lr=RATE, momentum=0.9)
    inputs, targets = data().tensors
    rows = torch.arange(32).reshape(-1, ranks).T.reshape(ranks, -1, 8)
    statistics = [buffer.clone() for buffer in net.buffers()]
    for epoch in range(EPOCHS):
        method.progress = (epoch + 1) / EPOCHS
        losses = []
        for number in range(rows.shape[1]):
            if number % accumulated == 0:
                optimizer.zero_grad()
            # each rank begins with the first one's statistics, which are those that stay
            for rank in reversed(range(ranks)):
                for buffer, value in zip(net.buffers(), statistics, strict=True):
                    buffer.copy_(value)
                before = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in net.parameters()]
                losses.append(method.backward(inputs[rows[rank, number]], targets[rows[rank, number]]))
                for parameter, old in zip(net.parameters(), before, strict=True):
                    parameter.grad = old + (parameter.grad - old) / (accumulated * ranks)
            statistics = [buffer.clone() for buffer in net.buffers()]
            if (number + 1) % accumulated == 0:
                if clip is not None:
                    nn.utils.clip_grad_norm_(net.parameters(), clip)
                optimizer.step()
    return net, torch.stack(losses).mean()


def assert_same(module, net, **tolerance):
    for (name, found), expected in zip(
        module.net.state_dict().items(), net.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(found, expected, **tolerance, msg=name)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_trains_as_by_hand(name, tmp_path):
    module = Classifier(name)
    trainer = trained(module, tmp_path)
    net, loss = by_hand(name)
    assert_same(module, net, rtol=1e-5, atol=1e-6)
    # of the unperturbed weights alone
    torch.testing.assert_close(trainer.callback_metrics["loss"], loss, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["sam", "gsam"])
def test_accumulation_and_clipping_are_the_trainers(name, tmp_path):
    module = Classifier(name)
    trained(module, tmp_path, accumulate_grad_batches=2, gradient_clip_val=0.1)
    assert_same(module, by_hand(name, accumulated=2, clip=0.1)[0], rtol=1e-5, atol=1e-6)


def test_every_pass_runs_in_bfloat16(tmp_path):
    module = Classifier("sam")
    trained(module, tmp_path, precision="bf16-mixed")
    # a loss outside of autocast would round otherwise
    assert_same(module, by_hand("sam", autocast=torch.bfloat16)[0], rtol=1e-4, atol=1e-5)
    with pytest.raises(AssertionError):
        assert_same(module, by_hand("sam")[0], rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(
    LIBRARY is not None and find_spec("torchvision") is not None,
    reason="a spawned rank imports Lightning, and with it torchvision, before this module, and so needs a torchvision "
    "without CUDA beside a torch without",
)
@pytest.mark.parametrize("name", ["sam", "gsam"])
def test_two_ranks_train_on_the_mean_of_their_gradients(name, tmp_path):
    module = Classifier(name)
    strategy = DDPStrategy(process_group_backend="gloo", start_method="spawn")
    trained(module, tmp_path, strategy=strategy, devices=2)
    assert_same(module, by_hand(name, ranks=2)[0], rtol=1e-4, atol=1e-5)


def test_a_precision_in_which_passes_would_go_wrong_is_refused(tmp_path):
    with pytest.raises(ValueError, match="^precision:"):
        trained(Classifier("sam"), tmp_path, plugins=[Half("16-mixed", "cpu")])


def test_a_method_that_needs_labels_says_so(tmp_path):
    METHODS["ncsam"] = (NCSAM, {"rho": 0.1, "flip_ratio": 0.2, "strength": 0.1})
    try:
        with pytest.raises(ValueError, match="targets: NCSAM"):
            trained(Classifier("ncsam"), tmp_path)
    finally:
        del METHODS["ncsam"]


@pytest.mark.parametrize("every", [3, "epoch"])
def test_a_tracker_follows_as_a_callback(every, tmp_path):
    module = Classifier("sam")
    whole = data().tensors
    objective = Objective(
        module,
        lambda outputs, batch: nn.functional.cross_entropy(outputs, batch[1]),
        whole,
        forward=lambda module, batch: module.net(batch[0]),
    )
    tracker = Tracker(
        objective, every=every, measures=["loss", "movement", "critical_sharpness"], at_most=None
    )
    trained(module, tmp_path, callbacks=[LightningTracker(tracker)])
    track = tracker.track()
    assert list(track.step) == {3: [3, 6], "epoch": [4, 8]}[every]
    assert (track.of("update_norm") > 0).all()
    if every == "epoch":
        module.eval()
        with torch.no_grad():
            last = nn.functional.cross_entropy(module.net(whole[0]), whole[1])
        assert track.of("loss")[-1] == pytest.approx(last.item(), rel=1e-5)
    untracked = Classifier("sam")
    trained(untracked, tmp_path)
    for one, other in zip(module.parameters(), untracked.parameters(), strict=True):
        assert torch.equal(one, other)
