import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn

from landscape import Objective, spectral_density, top_eigenvalues, trace
from tests.conftest import build
from tests.ranks import joined, on_two_ranks

cross_entropy = nn.CrossEntropyLoss()


def measured(objective):
    vector = torch.randn(
        objective.n_parameters, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    density = spectral_density(objective, steps=10, probes=2)
    return {
        "loss": objective.value(),
        "accuracy": objective.evaluate().accuracy,
        "samples": objective.n_samples,
        "gradient": objective.gradient().numpy(),
        "hessian product": objective.hvp(vector).numpy(),
        "gauss-newton product": objective.ggnvp(vector).numpy(),
        "eigenvalues": top_eigenvalues(objective, 2, tol=1e-8).values,
        "trace": trace(objective, rtol=None, max_products=12).value,
        "density": density.density,
    }


def rank_main(rank, port, folder, linearize):
    with joined(rank, port):
        model, inputs, targets = build("cnn-batchnorm-dropout")
        # uneven shares, as they are in practice
        mine = slice(0, 25) if rank == 0 else slice(25, 37)
        objective = Objective(
            model,
            cross_entropy,
            (inputs[mine], targets[mine]),
            chunk_size=10,
            linearize=linearize,
            process_group=dist.group.WORLD,
        )
        results = measured(objective)
        with torch.no_grad():
            model[0].weight[0] += rank
        try:
            Objective(model, cross_entropy, (inputs, targets), process_group=dist.group.WORLD)
        except ValueError as error:
            results["refusal"] = str(error)
        torch.save(results, f"{folder}/{rank}.pt")


@pytest.mark.parametrize("linearize", [False, True])
def test_two_ranks_with_a_share_of_the_data_each_equal_one_with_all(tmp_path, linearize):
    on_two_ranks(rank_main, str(tmp_path), linearize)
    model, inputs, targets = build("cnn-batchnorm-dropout")
    alone = measured(Objective(model, cross_entropy, (inputs, targets), chunk_size=10, linearize=linearize))
    for rank in range(2):
        results = torch.load(tmp_path / f"{rank}.pt", weights_only=False)
        assert results.pop("refusal").startswith("process_group: the ranks hold different weights")
        assert results.keys() == alone.keys()
        for name, value in results.items():
            np.testing.assert_allclose(value, alone[name], rtol=1e-6, atol=1e-9, err_msg=name)
