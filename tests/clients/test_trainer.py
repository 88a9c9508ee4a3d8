"""Hugging Face's Trainer with a method of the SAM family, and with a tracker, beside loops written by hand."""

# before transformers, which imports torchvision; a spawned rank imports this module, and not conftest.py
import tests.clients.without_cuda  # noqa: F401  # isort: skip

import os
import re
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import Dataset, SequentialSampler
from transformers import Trainer, TrainingArguments

from landscape import Objective, Tracker
from landscape.tracking.transformers import TransformersTracker
from ncsam import ASAM, GSAM, NCSAM, SAM, Plain
from ncsam.integrations.transformers import SharpnessAwareTrainer
from tests.ranks import on_two_ranks

METHODS = {
    "sam": partial(SAM, rho=0.3),
    "asam": partial(ASAM, rho=0.3),
    "gsam": partial(GSAM, rho=0.3, alpha=0.2),
}
RATE, STEPS = 0.2, 4


class Rows(Dataset):
    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        self.inputs = torch.randn(64, 5, generator=generator)
        self.labels = torch.randint(0, 3, (64,), generator=generator)

    def __len__(self):
        return 64

    def __getitem__(self, row):
        return {"inputs": self.inputs[row], "labels": self.labels[row]}


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(1)
            self.net = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3))

    def forward(self, inputs, labels):
        logits = self.net(inputs)
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


class InOrder(SharpnessAwareTrainer):
    def _get_train_sampler(self, train_dataset=None):
        return SequentialSampler(train_dataset or self.train_dataset)


def trained(name, folder, *, callbacks=(), **options):
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=STEPS,
        per_device_train_batch_size=8,
        learning_rate=RATE,
        lr_scheduler_type="constant",
        optim="sgd",
        **{"max_grad_norm": 0.0, **options},
        use_cpu=True,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
    )
    model = Classifier()
    trainer = InOrder(model, arguments, train_dataset=Rows(), method=METHODS[name], callbacks=list(callbacks))
    trainer.train()
    return model


def by_hand(name, *, accumulated=1, clip=None, autocast=None, ranks=1):
    model = Classifier()
    method = METHODS[name](model.net, nn.CrossEntropyLoss())
    method.passes.autocast_dtype = autocast
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    rows = Rows()
    batches = list(zip(rows.inputs.split(8), rows.labels.split(8), strict=True))
    share = accumulated * ranks
    for step in range(STEPS):
        optimizer.zero_grad()
        for batch in range(share):
            method.backward(*batches[(step * share + batch) % len(batches)])
        for parameter in model.parameters():
            parameter.grad /= share
        if clip is not None:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
    return model


def assert_same(found, expected, **tolerance):
    for one, other in zip(found.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(one, other, **tolerance)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_trains_as_by_hand(name, tmp_path):
    assert_same(trained(name, tmp_path), by_hand(name), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["sam", "gsam"])
def test_accumulation_and_clipping_are_the_trainers(name, tmp_path):
    found = trained(name, tmp_path, gradient_accumulation_steps=2, max_grad_norm=0.1)
    assert_same(found, by_hand(name, accumulated=2, clip=0.1), rtol=1e-5, atol=1e-6)


def test_every_pass_runs_in_bfloat16(tmp_path):
    found = trained("sam", tmp_path, bf16=True)
    # the loss is computed in half precision by the model's own forward; by hand in float32
    assert_same(found, by_hand("sam", autocast=torch.bfloat16), rtol=2e-2, atol=2e-3)
    with pytest.raises(AssertionError):
        assert_same(found, by_hand("sam"), rtol=1e-5, atol=1e-6)


def on_a_rank(rank, port, name, folder):
    torch.set_num_threads(1)
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    wrapped = []
    call = DistributedDataParallel.forward
    DistributedDataParallel.forward = lambda self, *a, **k: wrapped.append(1) or call(self, *a, **k)
    model = trained(name, folder, ddp_backend="gloo")
    assert wrapped
    torch.save(model.state_dict(), f"{folder}/{rank}.pt")
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("name", ["sam", "gsam"])
def test_two_ranks_train_on_the_mean_of_their_gradients(name, tmp_path):
    on_two_ranks(on_a_rank, name, str(tmp_path))
    expected = by_hand(name, ranks=2)
    for rank in range(2):
        found = Classifier()
        found.load_state_dict(torch.load(tmp_path / f"{rank}.pt"))
        assert_same(found, expected, rtol=1e-5, atol=1e-6)


def test_loss_scaling_is_refused(tmp_path):
    with pytest.raises(ValueError, match="^args:"):
        trained("sam", tmp_path, fp16=True)


@pytest.mark.parametrize("every", [2, "epoch"])
def test_a_tracker_follows_as_a_callback(every, tmp_path):
    rows = Rows()
    model = Classifier()
    objective = Objective(
        model, lambda outputs, _: outputs["loss"], {"inputs": rows.inputs, "labels": rows.labels}
    )
    tracker = Tracker(objective, every=every, measures=["loss", "movement"], at_most=None)
    found = trained("sam", tmp_path, callbacks=[TransformersTracker(tracker)], gradient_accumulation_steps=2)
    track = tracker.track()
    assert list(track.step) == {2: [2, 4], "epoch": [4]}[every]
    assert (track.of("update_norm") > 0).all()
    with torch.no_grad():
        last = found(rows.inputs, rows.labels)["loss"].item()
    assert track.of("loss")[-1] == pytest.approx(last, rel=1e-5)


class WithLogits(nn.Module):
    """A classifier of the form that the page's trainer is written for: outputs by name, no loss without labels."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(1)
            self.net = nn.Linear(5, 3)

    def forward(self, inputs, labels=None):
        logits = self.net(inputs)
        return {"logits": logits} | (
            {} if labels is None else {"loss": nn.functional.cross_entropy(logits, labels)}
        )


def test_the_pages_trainer_makes_the_trainers_own_steps_and_those_of_ncsam(tmp_path, pytestconfig):
    page = (pytestconfig.rootpath / "docs/training.md").read_text()
    (snippet,) = re.findall(
        r"```py\n(from ncsam import NCSAM\nfrom transformers.*?)\nMethodTrainer\(", page, flags=re.S
    )
    names = {}
    exec(snippet, names)

    def trained(trainer, **options):
        model = WithLogits()
        arguments = TrainingArguments(
            str(tmp_path),
            num_train_epochs=1,
            per_device_train_batch_size=16,
            learning_rate=0.1,
            use_cpu=True,
            report_to=[],
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            seed=3,
        )
        made = trainer(model, arguments, train_dataset=Rows(), **options)
        made.train()
        return made, model.net.weight.detach()

    how = {"forward": lambda model, inputs: model(**inputs)["logits"]}
    loss = nn.CrossEntropyLoss()
    _, own = trained(Trainer)
    _, plain = trained(names["MethodTrainer"], method=lambda model: Plain(model, loss, **how))
    torch.testing.assert_close(plain, own)
    ncsam = {"rho": 0.5, "flip_ratio": 0.5, "strength": 0.5, "warmup": 0.0}
    by_ncsam, weights = trained(
        names["MethodTrainer"], method=lambda model: NCSAM(model, loss, **ncsam, **how)
    )
    # the schedule's strength is 0 at the first step
    assert by_ncsam.method.gradient_count == pytest.approx(2 + 3 * 2.5)
    assert not torch.allclose(weights, own, atol=1e-3)
