"""One rank fails within a training step: all ranks end with the cause, and stay in step; none waits for the timeout."""

import itertools

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ncsam import GSAM, NCSAM, SAM, Plain, Split, corrupt_labels, fit
from tests.ranks import joined, on_two_ranks

INPUTS = torch.randn(32, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
TARGETS = torch.randint(3, (32,), generator=torch.Generator().manual_seed(1))
loss_fn = nn.CrossEntropyLoss()
CAUSE = "ValueError: the disk is full"


def fail(*_):
    raise ValueError("the disk is full")


class Breaks(nn.Module):
    """A layer that can be told in which pass it fails; counted from 1."""

    def __init__(self):
        super().__init__()
        # state that is a number would be put back after the second pass
        self.fails_in, self.passes = 0, itertools.count(1)

    def forward(self, x):
        if next(self.passes) == self.fails_in:
            fail()
        return x


def wrapped(norm=False):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        middle = [nn.BatchNorm1d(8)] if norm else []
        network = nn.Sequential(nn.Linear(6, 8), *middle, nn.Tanh(), Breaks(), nn.Linear(8, 3)).double()
    return DistributedDataParallel(network)


def ncsam(model):
    return NCSAM(model, loss_fn, rho=0.1, flip_ratio=0.4, strength=0.1, warmup=0.0, schedule="constant")


def averaged(method):
    method.passes.average_over_ranks = True
    return method


METHODS = {
    "plain": (lambda model: Plain(model, loss_fn), 1),
    "sam": (lambda model: SAM(model, loss_fn, rho=0.1), 2),
    "sam, averaged": (lambda model: averaged(SAM(model, loss_fn, rho=0.1)), 2),
    "gsam": (lambda model: GSAM(model, loss_fn, rho=0.1, alpha=0.1), 2),
    "ncsam": (ncsam, 3),
}
"""Name -> (method, its number of passes)."""
AGREEMENTS = {"plain": 2, "sam": 2, "sam, averaged": 3 + 2 * 2, "gsam": 1, "ncsam": 2}
"""Operations of a step in which ranks wait: forward and backward pass of the wrapped model, and averages. Ranks that
average also sum their weights in each pass, which takes an agreement and a number.
"""


def said(attempt):
    try:
        attempt()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def failing_passes(rank):
    """What each rank says if rank 1 fails in each of a method's passes, and the gradients of a step afterward."""
    rows = torch.arange(16) + 16 * rank
    found = {}
    for name, (build, passes) in METHODS.items():
        model = wrapped(norm=True)
        breaks, method = model.module[3], build(model)
        messages = []
        for number in range(1, passes + 1):
            breaks.passes, breaks.fails_in = itertools.count(1), number if rank else 0
            messages.append(said(lambda method=method: method.backward(INPUTS[rows], TARGETS[rows])))
        breaks.fails_in = 0
        model.zero_grad()
        method.backward(INPUTS[rows], TARGETS[rows])
        found[name] = messages, [parameter.grad for parameter in model.parameters()]
    return found


def failing_batches(rank):
    """What each rank says of a batch that rank 1 cannot take."""
    method = SAM(wrapped(), loss_fn, rho=0.1)
    wrong = TARGETS[:8] + 3 * rank
    batches = {
        "labels": (INPUTS[:8], wrong),
        "empty": (INPUTS[: 8 - 8 * rank], TARGETS[: 8 - 8 * rank]),
        "nothing": (None if rank else INPUTS[:8], TARGETS[:8]),
    }
    return {name: said(lambda batch=batch: method.backward(*batch)) for name, batch in batches.items()}


def agreements():
    """How many numbers the ranks sum in a step of each method, beside gradients."""
    found = {}
    for name, (build, _) in METHODS.items():
        method, reduce, lengths = build(wrapped(norm=True)), dist.all_reduce, []

        def counted(tensor, *arguments, lengths=lengths, reduce=reduce, **options):
            lengths.append(tensor.numel())
            return reduce(tensor, *arguments, **options)

        dist.all_reduce = counted
        try:
            method.backward(INPUTS, TARGETS)
        finally:
            dist.all_reduce = reduce
        found[name] = lengths.count(1)
    return found


def failing_optimizer(rank):
    """What `fit` says on each rank if the optimizer of rank 1 fails in the last step of an epoch."""
    method = Plain(wrapped(), loss_fn)
    optimizer = torch.optim.SGD(method.parameters(), lr=0.1)
    steps = []

    def step(*_):
        steps.append(0)
        if rank and len(steps) == 2:
            fail()

    optimizer.register_step_post_hook(step)
    data, labels = Split(INPUTS, TARGETS), corrupt_labels(TARGETS, rate=0.4, seed=0)
    return said(lambda: fit(method, optimizer, data, labels, data, epochs=2, batch_size=8, seed=0))


def uneven(rank):
    """Steps under DistributedDataParallel's own `join`, with which rank 1 ends early."""
    model = wrapped()
    method = Plain(model, loss_fn)
    with model.join():
        for _ in range(3 - 2 * rank):
            method.backward(INPUTS, TARGETS)
    return method.gradient_count


def refused_where_ranks_join():
    """What methods that sum gradients over the ranks themselves say within `join`."""
    found = {}
    for name in ("gsam", "sam, averaged"):
        model = wrapped()
        method = METHODS[name][0](model)
        with model.join():
            found[name] = said(lambda method=method: method.backward(INPUTS, TARGETS))
            # join ends when no rank has a step left
            Plain(model, loss_fn).backward(INPUTS, TARGETS)
        # torch leaves the mark of join on the model
        found[f"{name} afterward"] = said(lambda method=method: method.backward(INPUTS, TARGETS))
        anew = METHODS[name][0](DistributedDataParallel(model.module))
        found[f"{name} wrapped anew"] = said(lambda method=anew: method.backward(INPUTS, TARGETS))
    return found


def _rank(rank, port, folder):
    with joined(rank, port):
        found = {
            "passes": failing_passes(rank),
            "batches": failing_batches(rank),
            "optimizer": failing_optimizer(rank),
            "agreements": agreements(),
            "joined": uneven(rank),
            "refused where ranks join": refused_where_ranks_join(),
        }
        torch.save(found, f"{folder}/{rank}.pt")


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("failing")
    on_two_ranks(_rank, str(folder))
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(2)]


@pytest.mark.parametrize("name", METHODS)
def test_a_model_that_fails_on_one_rank_in_any_pass_ends_the_step_on_all_with_the_cause(outcomes, name):
    first, second = (found["passes"][name][0] for found in outcomes)
    assert second == [CAUSE] * METHODS[name][1]
    assert first == [f"RuntimeError: rank 1: {CAUSE}"] * METHODS[name][1]


@pytest.mark.parametrize("name", METHODS)
def test_ranks_train_on_together_after_a_failure(outcomes, name):
    first, second = (found["passes"][name][1] for found in outcomes)
    for one, other in zip(first, second, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
        assert one.abs().sum() > 0


@pytest.mark.parametrize("batch", ["labels", "empty", "nothing"])
def test_a_batch_that_one_rank_cannot_take_ends_the_step_on_all_with_the_cause(outcomes, batch):
    first, second = (found["batches"][batch] for found in outcomes)
    assert second
    assert first == f"RuntimeError: rank 1: {second}"


def test_an_optimizer_that_fails_on_one_rank_ends_the_training_on_all(outcomes):
    assert [found["optimizer"] for found in outcomes] == [f"RuntimeError: rank 1: {CAUSE}", CAUSE]


def test_ranks_sum_one_number_for_each_operation_in_which_they_wait(outcomes):
    for found in outcomes:
        assert found["agreements"] == AGREEMENTS


def test_a_rank_that_has_joined_early_is_not_asked(outcomes):
    assert [found["joined"] for found in outcomes] == [3, 1]


@pytest.mark.parametrize("name", ["gsam", "sam, averaged"])
def test_a_method_that_sums_gradients_itself_is_refused_where_ranks_join_and_would_wait_in_vain(
    outcomes, name
):
    for found in outcomes:
        refusals = found["refused where ranks join"]
        for said_then in (refusals[name], refusals[f"{name} afterward"]):
            assert "runs, or ran, within join()" in said_then
            assert "wrap the model in DistributedDataParallel anew" in said_then
        assert refusals[f"{name} wrapped anew"] == ""


def _leaves(rank, port, folder):
    """Rank 1 fails in its backward pass, while rank 0 waits for its gradients, and ends its process."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    model = wrapped()
    if rank:
        model.module[-1].register_full_backward_hook(fail)
    method = Plain(model, loss_fn)
    torch.save(said(lambda: method.backward(INPUTS, TARGETS)), f"{folder}/{rank}.pt")


def test_a_failure_while_others_wait_is_raised_on_its_rank_and_ends_the_others_with_its_process(tmp_path):
    on_two_ranks(_leaves, str(tmp_path))
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert second == CAUSE
    assert first.startswith("RuntimeError: ")
