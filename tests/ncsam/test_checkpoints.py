"""Checkpoints of a training: exact resume, and files that are refused."""

import copy
import math
import os

import numpy as np
import pytest
import torch

from ncsam import (
    METRICS,
    Augmentation,
    CheckpointError,
    fit,
)
from ncsam.seal import LENGTH
from tests.ncsam.small_training import prepare, train


class Killed(Exception):
    pass


def killed_and_resumed(digits, kind, path, last, options):
    """A training that is killed after an epoch, and goes on: (epochs seen since, history, method)."""

    def kill(epoch, *_):
        if epoch == last:
            raise Killed

    with pytest.raises(Killed):
        train(digits, kind, checkpoint=path, on_epoch=kill, **options)
    seen = []
    return seen, *train(
        digits, kind, checkpoint=path, on_epoch=lambda epoch, *_: seen.append(epoch), **options
    )


@pytest.mark.parametrize(
    ("kind", "model", "options"),
    [
        ("plain", "mlp", {}),
        ("ncsam", "mlp", {}),
        ("ncsam", "cnn", {"augmentation": Augmentation(crop=1, flip=True, cutout=3)}),
        ("dropout", "mlp", {"mixup_alpha": 0.5}),
        ("elr", "mlp", {}),
        ("sln", "mlp", {"redraw": "step"}),
        ("friendly-sam", "mlp", {}),
        ("co-teaching", "cnn", {}),
        ("sop", "mlp", {}),
        ("looksam", "mlp", {}),
        ("regce", "cnn", {}),
        ("pes", "mlp", {}),
        ("elr-plus", "mlp", {}),
        ("dividemix", "mlp", {}),
        ("aum-filter", "mlp", {}),
        ("float16", "mlp", {"max_gradient_norm": 0.5}),
    ],
)
def test_a_killed_run_resumes_to_the_same_bits(digits, tmp_path, kind, model, options):
    options = {"model": model, "alignment_batches": 1, **options}
    whole, undisturbed = train(digits, kind, **options)
    for epoch in (1, 4):
        path = tmp_path / f"killed-after-{epoch}.ckpt"
        seen, history, method = killed_and_resumed(digits, kind, path, epoch, options)
        assert seen[0] == epoch
        for name, tensor in method.model.state_dict().items():
            assert torch.equal(tensor, undisturbed.model.state_dict()[name]), name
        for name in METRICS.keys() - {"seconds"}:
            np.testing.assert_array_equal(history.metrics[name], whole.metrics[name])


def test_a_checkpoint_of_an_earlier_version_goes_on_without_what_it_did_not_record(digits, tmp_path):
    path = tmp_path / "run.ckpt"
    train(digits, "sam", epochs=1, checkpoint=path)
    state = torch.load(path, weights_only=True)
    del state["rows"][0]["perturbation_norm"]
    torch.save(state, path)
    history, _ = train(digits, "sam", epochs=2, checkpoint=path)
    assert history.metrics["perturbation_norm"] == pytest.approx([math.nan, 0.1], nan_ok=True)
    assert np.isfinite(history.metrics["train_loss"]).all()


def test_a_checkpoint_of_other_settings_is_refused(digits, tmp_path):
    path = tmp_path / "run.ckpt"
    train(digits, epochs=1, checkpoint=path, fingerprint="a")
    with pytest.raises(ValueError, match="^checkpoint"):
        train(digits, checkpoint=path, fingerprint="b")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut short", b"hello world", b"\x80\x02."])
def test_a_broken_checkpoint_is_named(digits, tmp_path, content):
    path = tmp_path / "run.ckpt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="^checkpoint: .*cannot be read"):
        train(digits, checkpoint=path)


def test_a_fifo_is_no_checkpoint_and_not_waited_for(digits, tmp_path):
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(CheckpointError, match=r"^checkpoint: .*fifo is not a file"):
        train(digits, checkpoint=tmp_path / "fifo")


def test_a_checkpoint_with_a_changed_byte_is_refused(digits, tmp_path):
    path = tmp_path / "run.ckpt"
    train(digits, "sam", epochs=1, checkpoint=path)
    whole = path.read_bytes()
    for place in range(7, len(whole) - LENGTH, len(whole) // 25):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(CheckpointError, match=r"run\.ckpt cannot be read"):
            train(digits, "sam", epochs=2, checkpoint=path)
    path.write_bytes(whole)
    train(digits, "sam", epochs=2, checkpoint=path)


def test_a_checkpoint_of_a_longer_training_is_refused(digits, tmp_path):
    path = tmp_path / "run.ckpt"
    train(digits, epochs=2, checkpoint=path)
    method, optimizer, scheduler = prepare(digits[0])
    before = copy.deepcopy(method.model.state_dict())
    with pytest.raises(ValueError, match="^checkpoint: .* has 2 epochs already"):
        fit(
            method,
            optimizer,
            digits[0].train,
            digits[1],
            digits[0].test,
            epochs=1,
            batch_size=128,
            seed=0,
            scheduler=scheduler,
            checkpoint=path,
        )
    for name, tensor in method.model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_a_checkpoint_may_be_named_in_words(digits, tmp_path):
    dataset, noisy = digits
    for _ in range(2):
        method, optimizer, _ = prepare(dataset)
        file = str(tmp_path / "run.ckpt")
        history = fit(
            method,
            optimizer,
            dataset.train,
            noisy,
            dataset.test,
            epochs=1,
            batch_size=512,
            seed=0,
            checkpoint=file,
        )
        assert history.epochs == 1
