"""Models as training scripts hold them: under torch.compile, DataParallel, DistributedDataParallel, in Lightning."""

import copy

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from landscape import Objective
from ncsam import NCSAM, SAM
from tests.clients.client import CHECKS, RHO, Client, D

cross_entropy = nn.CrossEntropyLoss()


def samples():
    return torch.randn(12, 4, dtype=D, generator=torch.Generator().manual_seed(0)), torch.arange(12) % 3


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 3)).to(D)


@pytest.fixture
def one_rank(tmp_path):
    dist.init_process_group("gloo", f"file://{tmp_path}/ranks", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


WRAPPERS = {
    "compile": lambda model: torch.compile(model, backend="eager"),
    "DataParallel": nn.DataParallel,
    "DistributedDataParallel": nn.parallel.DistributedDataParallel,
}


@pytest.mark.usefixtures("one_rank")
@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_all_measures_of_a_wrapped_model_are_those_of_plain_torch(wrapper, check):
    data = samples()
    client = Client(
        network(),
        lambda model: cross_entropy(model(data[0]), data[1]),
        Objective(WRAPPERS[wrapper](network()), cross_entropy, data, chunk_size=5),
        ("0.weight", "3.weight"),
        lambda model, rho: SAM(WRAPPERS[wrapper](model), cross_entropy, rho=rho),
        data,
    )
    CHECKS[check](client)


def lightning_module(lightning, by_closure, method_type, **options):
    class Trained(lightning.LightningModule):
        """Steps by hand, with the method where `manual_backward` stood."""

        def __init__(self):
            super().__init__()
            self.network = network()
            self.automatic_optimization = False
            self.method = method_type(self.network, cross_entropy, rho=RHO, **options)
            self.method.progress = 1.0

        def training_step(self, batch, _):
            self.optimizers().zero_grad()
            if by_closure:
                loss = self.method.backward(closure=lambda: cross_entropy(self.network(batch[0]), batch[1]))
            else:
                loss = self.method.backward(*batch)
            self.optimizers().step()
            self.log("loss", loss)

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1)

    return Trained()


def fit(module, folder):
    from tests.clients.quiet_trainer import quiet_trainer

    trainer = quiet_trainer(folder, 2)
    trainer.fit(module, DataLoader(TensorDataset(*samples()), batch_size=6))
    assert trainer.global_step == 4


def plain_sam():
    """The same training in plain torch."""
    model, (inputs, targets) = network(), samples()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for rows in [slice(0, 6), slice(6, 12)] * 2:
        parameters = list(model.parameters())
        slope = torch.autograd.grad(cross_entropy(model(inputs[rows]), targets[rows]), parameters)
        length = torch.sqrt(sum(part.square().sum() for part in slope))
        moved = copy.deepcopy(model)
        with torch.no_grad():
            for parameter, part in zip(moved.parameters(), slope, strict=True):
                parameter.add_(RHO / length * part)
        found = torch.autograd.grad(
            cross_entropy(moved(inputs[rows]), targets[rows]), list(moved.parameters())
        )
        for parameter, part in zip(parameters, found, strict=True):
            parameter.grad = part
        optimizer.step()
    return model


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("by_closure", [False, True])
def test_lightning_trains_by_sam_as_plain_torch_does(by_closure, tmp_path):
    lightning = pytest.importorskip("lightning")
    module = lightning_module(lightning, by_closure, SAM)
    fit(module, tmp_path)
    expected = plain_sam().state_dict()
    for name, found in module.network.state_dict().items():
        torch.testing.assert_close(found, expected[name], rtol=1e-8, atol=1e-10)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_lightning_trains_by_ncsam_and_its_module_is_measured(tmp_path):
    lightning = pytest.importorskip("lightning")
    module = lightning_module(lightning, False, NCSAM, flip_ratio=0.4, strength=0.1)
    fit(module, tmp_path)
    inputs, targets = samples()
    objective = Objective(module.network, cross_entropy, (inputs, targets))
    assert objective.value() == pytest.approx(cross_entropy(module.network.eval()(inputs), targets).item())


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_lightning_module_itself_is_measured(tmp_path):
    lightning = pytest.importorskip("lightning")

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.network = network()

        def forward(self, x):
            return self.network(x)

        def training_step(self, batch, _):
            return cross_entropy(self(batch[0]), batch[1])

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1)

    module = Module()
    fit(module, tmp_path)
    data = samples()
    client = Client(
        module,
        lambda model: cross_entropy(model(data[0]), data[1]),
        Objective(module, cross_entropy, data, chunk_size=5),
        ("network.0.weight",),
        lambda model, rho: SAM(model, cross_entropy, rho=rho),
        data,
    )
    for check in CHECKS.values():
        check(client)
