"""Several threads measure at once: every number is the one of a single thread, and no setting stays changed."""

import copy
import pickle
import threading
import time
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch import nn

import landscape
from landscape.fx.plain_formulas import twice_differentiable
from landscape.fx.threads import HeldSetting, ThreadLock


class Pause(nn.Module):
    """Gives way to other threads in the midst of a forward pass, as the interpreter may do anywhere."""

    def forward(self, inputs):
        time.sleep(1e-4)
        return inputs


def network():
    torch_state = torch.random.get_rng_state()
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(6, 8), Pause(), nn.Tanh(), nn.Linear(8, 8), Pause(), nn.Tanh(), nn.Linear(8, 3)
    )
    torch.random.set_rng_state(torch_state)
    return model


def an_objective(**options):
    generator = torch.Generator().manual_seed(0)
    data = torch.randn(32, 6, generator=generator), torch.randint(3, (32,), generator=generator)
    return landscape.Objective(network(), nn.CrossEntropyLoss(), data, chunk_size=8, **options)


def in_threads(*jobs):
    """The results of jobs that start together; the first error of any is raised."""
    results, errors, start = [None] * len(jobs), [], threading.Barrier(len(jobs))

    def run(index, job):
        try:
            start.wait()
            results[index] = job()
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=each) for each in enumerate(jobs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    if errors:
        raise errors[0]
    return results


MEASURES = {
    "value": lambda objective, theta: [objective.value(theta)],
    "gradient": lambda objective, theta: objective.gradient(theta),
    "hvp": lambda objective, theta: objective.hvp(torch.ones_like(theta), theta),
    "ggnvp": lambda objective, theta: objective.ggnvp(torch.ones_like(theta), theta),
    "outputs": lambda objective, theta: objective.outputs(theta, objective.inputs).flatten(),
    "weights of a copy": lambda objective, _: torch.cat(
        [p.detach().flatten() for p in objective.independent_model().parameters()]
    ),
}


@pytest.mark.parametrize("linearize", [False, True])
@pytest.mark.parametrize("measure", MEASURES)
def test_threads_that_share_an_objective_get_the_numbers_of_one_thread(measure, linearize):
    objective = an_objective(linearize=linearize)
    ask = MEASURES[measure]
    points = [objective.theta.clone(), objective.theta + 0.5, objective.theta - 0.5]
    alone = [np.asarray(ask(objective, point)) for point in points]
    together = in_threads(
        *(lambda point=point: [np.asarray(ask(objective, point)) for _ in range(10)] for point in points)
    )
    for expected, results in zip(alone, together, strict=True):
        for result in results:
            np.testing.assert_allclose(result, expected, rtol=1e-6, atol=1e-7)
    assert all(isinstance(parameter, nn.Parameter) for parameter in objective.model.parameters())


def test_a_part_of_an_objective_shares_its_model_and_its_lock():
    objective = an_objective()
    part = objective.subset(samples=torch.arange(16))
    points = objective.theta + 0.5, part.theta - 0.5
    alone = objective.value(points[0]), part.value(points[1])
    together = in_threads(
        lambda: [objective.value(points[0]) for _ in range(20)],
        lambda: [part.value(points[1]) for _ in range(20)],
    )
    assert [set(values) for values in together] == [{alone[0]}, {alone[1]}]


def test_whatever_is_measured_side_by_side_is_what_one_thread_measures():
    objective = an_objective()
    directions = landscape.filter_normalized_directions(objective, 2, seed=0)
    one = landscape.filter_normalized_directions(objective, 1, seed=0)
    jobs = [
        lambda: landscape.surface(objective, directions, steps=5).loss,
        lambda: landscape.line(objective, one, steps=25).loss,
        lambda: landscape.trace(objective, max_products=20).value,
        lambda: landscape.top_eigenvalues(objective, 1).values,
        lambda: landscape.sharpness(objective, rho=0.1, restarts=1).value,
        lambda: objective.value(objective.theta + 0.5),
        lambda: objective.gradient(objective.theta - 0.5),
        lambda: objective.hvp(torch.ones_like(objective.theta)),
    ]
    alone = [np.asarray(job()) for job in jobs]
    for expected, found in zip(alone, in_threads(*jobs), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def settings():
    cuda = torch.backends.cuda
    return (
        torch.backends.mha.get_fastpath_enabled(),
        cuda.flash_sdp_enabled(),
        cuda.mem_efficient_sdp_enabled(),
        cuda.math_sdp_enabled(),
    )


def test_the_attention_settings_are_put_back_by_the_thread_that_leaves_last():
    before = settings()
    entered, left = threading.Event(), threading.Event()

    def first():
        with twice_differentiable():
            entered.set()
            assert left.wait(10)
            return settings()

    def second():
        assert entered.wait(10)
        with twice_differentiable():
            inside = settings()
        between = settings()
        left.set()
        return inside, between

    during, (inside, between) = in_threads(first, second)
    assert inside == between == during == (False, False, False, True)
    assert settings() == before


def test_a_setting_is_changed_once_and_put_back_once_also_by_an_error():
    calls = []

    @contextmanager
    def change():
        calls.append("changed")
        yield
        calls.append("back")

    setting = HeldSetting(change)
    with setting.held():
        with pytest.raises(ZeroDivisionError), setting.held():
            raise ZeroDivisionError
        assert calls == ["changed"]
    assert calls == ["changed", "back"]


def test_a_loader_in_another_thread_leaves_the_callers_random_state():
    generator = torch.Generator().manual_seed(0)
    inputs, targets = torch.randn(32, 6, generator=generator), torch.randint(3, (32,), generator=generator)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(inputs, targets), batch_size=8)
    before = torch.random.get_rng_state()
    model = network()

    def make():
        for _ in range(5):
            landscape.Objective(model, nn.CrossEntropyLoss(), loader)

    in_threads(make, make)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_copied_or_pickled_lock_is_a_new_one():
    lock = ThreadLock()
    with lock:
        for other in (copy.deepcopy(lock), pickle.loads(pickle.dumps(lock))):
            assert in_threads(lambda other=other: other.__enter__()) == [None]
