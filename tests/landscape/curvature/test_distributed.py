import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.utils.data import DataLoader, Dataset

from landscape import (
    EmpiricalFisher,
    Objective,
    gradient_noise,
    line,
    sampling_error,
    spectral_density,
    top_eigenvalues,
    trace,
)
from tests.conftest import build
from tests.ranks import joined, on_two_ranks

cross_entropy = nn.CrossEntropyLoss()


def measured(objective):
    vector = torch.randn(
        objective.n_parameters, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    density = spectral_density(objective, steps=10, probes=2)
    eigen = top_eigenvalues(objective, 2, tol=1e-8)
    return {
        "loss": objective.value(),
        "accuracy": objective.evaluate().accuracy,
        "samples": objective.n_samples,
        "gradient": objective.gradient().numpy(),
        "hessian product": objective.hvp(vector).numpy(),
        "gauss-newton product": objective.ggnvp(vector).numpy(),
        "eigenvalues": eigen.values,
        # of single samples, so that the ranks' groups are those of one process
        "sampling errors": sampling_error(objective, eigen, groups=37).standard_errors,
        "trace": trace(objective, rtol=None, max_products=12).value,
        "density": density.density,
    }


def rank_main(rank, port, folder):
    with joined(rank, port):
        model, inputs, targets = build("cnn-batchnorm-dropout")
        # uneven shares, as they are in practice
        mine = slice(0, 25) if rank == 0 else slice(25, 37)
        for linearize in (False, True):
            objective = Objective(
                model,
                cross_entropy,
                (inputs[mine], targets[mine]),
                chunk_size=10,
                linearize=linearize,
                process_group=dist.group.WORLD,
            )
            torch.save(measured(objective), f"{folder}/{rank}-{linearize}.pt")


class Files(Dataset):
    """Samples, the last of which is a file that can be lost."""

    def __init__(self):
        _, self.inputs, self.targets = build("cnn-batchnorm-dropout")
        self.is_lost = False

    def __len__(self):
        return len(self.inputs)

    def __getitem__(self, index):
        if self.is_lost and index == len(self) - 1:
            raise FileNotFoundError("36.png")
        return self.inputs[index], self.targets[index]


MEASURES = {
    "a loss": lambda objective: objective.value(),
    "a gradient": lambda objective: objective.gradient(),
    "a product": lambda objective: objective.hvp(objective.theta),
    "the Fisher matrix": lambda objective: EmpiricalFisher(objective) @ objective.theta,
    "a line": lambda objective: line(objective, objective.theta, steps=3),
    "gradient noise": lambda objective: gradient_noise(objective, pieces=4),
    "another Objective": lambda objective: Objective(
        objective.independent_model(),
        cross_entropy,
        DataLoader(objective.files),
        process_group=dist.group.WORLD,
    ),
}


def failures_on_one_rank(rank):
    """What each measure says when rank 1 cannot read its last sample any more."""
    files = Files()
    model, _, _ = build("cnn-batchnorm-dropout")
    loader = DataLoader(files, batch_size=20)
    objective = Objective(model, cross_entropy, loader, keep="none", process_group=dist.group.WORLD)
    objective.files = files
    said = {}
    for name, measure in MEASURES.items():
        files.is_lost = rank == 1
        try:
            measure(objective)
        except (FileNotFoundError, RuntimeError) as error:
            said[name] = f"{type(error).__name__}: {error}"
        files.is_lost = False
    said[CHANGED] = what_is_said_of_a_change(rank)
    said[EXCHANGED] = {name: exchanged(lambda m=measure: m(objective)) for name, measure in PASSES.items()}
    # the ranks are still in step
    said["afterward"] = objective.value()
    return said


CHANGED = "a model that changes on rank 1"
EXCHANGED = "what the ranks exchange"
PASSES = {name: MEASURES[name] for name in ("a loss", "a gradient", "a product", "the Fisher matrix")}


def exchanged(measure):
    """How many sums of one number, and how many pickled objects, the ranks exchange in a measure."""
    measure()  # preceded by checks
    reduce, gather, found = dist.all_reduce, dist.all_gather_object, []

    def reducing(tensor, *arguments, **options):
        if tensor.dtype == torch.int64:
            found.append(tensor.numel())
        return reduce(tensor, *arguments, **options)

    def gathering(*arguments, **options):
        found.append("object")
        return gather(*arguments, **options)

    dist.all_reduce, dist.all_gather_object = reducing, gathering
    try:
        measure()
    finally:
        dist.all_reduce, dist.all_gather_object = reduce, gather
    return found


class Late(nn.Module):
    """A model whose class scores change places after some passes."""

    def __init__(self, passes):
        super().__init__()
        self.model, self.left = build("mlp")[0], passes

    def forward(self, x):
        self.left -= 1
        return self.model(x) if self.left > 0 else self.model(x).flip(-1)


def what_is_said_of_a_change(rank):
    _, inputs, targets = build("mlp")
    objective = Objective(
        Late(12 if rank else 10**9),
        cross_entropy,
        (inputs, targets),
        process_group=dist.group.WORLD,
        linearize=False,
    )
    try:
        trace(objective, rtol=None, max_products=12)
    except (ValueError, RuntimeError) as error:
        return f"{type(error).__name__}: {error}"
    return ""


def refusals_main(rank, port, folder):
    """What is said about models that differ between the ranks in a weight, a frozen one, a statistic; or in nothing."""
    with joined(rank, port):
        torch.save(failures_on_one_rank(rank), f"{folder}/failures{rank}.pt")
        refusals = {}
        for name in ("0.weight", "6.bias", "1.running_mean", "nan"):
            model, inputs, targets = build("cnn-batchnorm-dropout")
            model[6].requires_grad_(False)
            with torch.no_grad():
                if name == "nan":
                    model[1].running_mean[0] = torch.nan
                else:
                    model.state_dict()[name][0] += rank
            try:
                Objective(model, cross_entropy, (inputs, targets), process_group=dist.group.WORLD)
            except ValueError as error:
                refusals[name] = str(error)
        torch.save(refusals, f"{folder}/{rank}.pt")


@pytest.fixture(scope="module")
def refused(tmp_path_factory):
    folder = tmp_path_factory.mktemp("refused")
    on_two_ranks(refusals_main, str(folder))
    return folder


@pytest.mark.parametrize("measure", MEASURES)
def test_a_failure_on_one_rank_ends_the_measure_on_all_with_its_cause(measure, refused):
    first, second = (torch.load(refused / f"failures{rank}.pt") for rank in range(2))
    assert second[measure] == "FileNotFoundError: 36.png"
    assert first[measure].startswith("RuntimeError: rank 1 failed")
    assert "36.png" in first[measure]
    assert first["afterward"] == second["afterward"]


@pytest.mark.parametrize("measure", PASSES)
def test_in_a_pass_that_succeeds_the_ranks_exchange_one_number_more_and_no_objects(measure, refused):
    for rank in range(2):
        assert torch.load(refused / f"failures{rank}.pt")[EXCHANGED][measure] == [1]


def test_a_model_that_changes_on_one_rank_is_refused_on_all(refused):
    first, second = (torch.load(refused / f"failures{rank}.pt")[CHANGED] for rank in range(2))
    assert second.startswith("ValueError: model: its outputs for the same samples")
    assert first.startswith("RuntimeError: rank 1 failed")


def test_ranks_whose_models_differ_are_told_where(refused):
    for rank in range(2):
        refusals = torch.load(refused / f"{rank}.pt")
        assert refusals.keys() == {"0.weight", "6.bias", "1.running_mean"}
        for name, message in refusals.items():
            assert message.startswith(f"process_group: the ranks hold different models, in {name};")


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shared")
    on_two_ranks(rank_main, str(folder))
    return folder


@pytest.mark.parametrize("linearize", [False, True])
def test_two_ranks_with_a_share_of_the_data_each_equal_one_with_all(linearize, shared):
    model, inputs, targets = build("cnn-batchnorm-dropout")
    alone = measured(Objective(model, cross_entropy, (inputs, targets), chunk_size=10, linearize=linearize))
    for rank in range(2):
        results = torch.load(shared / f"{rank}-{linearize}.pt", weights_only=False)
        assert results.keys() == alone.keys()
        for name, value in results.items():
            np.testing.assert_allclose(value, alone[name], rtol=1e-6, atol=1e-9, err_msg=name)
