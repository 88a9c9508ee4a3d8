"""What `fit` records of every training sample."""

from collections import Counter

import pytest
import torch
from torch import nn

from ncsam import Plain, build_model, corrupt_labels, detect, fit, load_dataset, predict
from ncsam.dynamics import NO_CLASS, Recorder, TrainingDynamics


@pytest.fixture(scope="module")
def digits():
    data = load_dataset("digits", train_samples=200, test_samples=20)
    return data, corrupt_labels(data.train.targets, rate=0.2, seed=0)


def train(digits, epochs=3, *, on_epoch=None, **options):
    data, labels = digits
    model = build_model("mlp", data.input_shape, data.num_classes, seed=0, hidden=[8])
    method = Plain(model, nn.CrossEntropyLoss())
    optimizer = torch.optim.SGD(method.parameters(), lr=0.1)
    calls = (data.train, labels, data.test)
    history = fit(
        method,
        optimizer,
        *calls,
        epochs=epochs,
        batch_size=50,
        seed=0,
        on_epoch=on_epoch and (lambda epoch, *_: on_epoch(epoch, model)),
        **options,
    )
    return history, model


def test_losses_margins_and_predictions_are_those_of_the_outputs(digits):
    data, labels = digits
    outputs = []
    history, _ = train(
        digits,
        on_epoch=lambda _, model: outputs.append(predict(model, data.train)),
        record_samples=True,
    )
    recorded = history.dynamics
    assert (recorded.epochs, recorded.samples) == (3, 200)
    for epoch, scores in enumerate(outputs):
        for sample in (0, 7, 199):
            own = int(labels.observed[sample])
            others = [value for label, value in enumerate(scores[sample].tolist()) if label != own]
            assert recorded.margins[epoch, sample].item() == pytest.approx(
                scores[sample, own].item() - max(others), abs=1e-6
            )
        log_probabilities = scores.log_softmax(1)[torch.arange(200), labels.observed]
        torch.testing.assert_close(recorded.losses[epoch], -log_probabilities)
        assert recorded.predictions[epoch].tolist() == scores.argmax(1).tolist()
    torch.testing.assert_close(recorded.losses.mean(1).double(), torch.tensor(history.metrics["train_loss"]))


def test_recording_leaves_the_training_as_it_is(digits):
    plain, plain_model = train(digits)
    recorded, recorded_model = train(digits, record_samples=True)
    assert plain.dynamics is None
    assert plain.metrics["train_loss"].tolist() == recorded.metrics["train_loss"].tolist()
    for one, other in zip(plain_model.parameters(), recorded_model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_killed_training_goes_on_with_what_it_recorded(digits, tmp_path):
    def kill(epoch, _):
        if epoch == 2:
            raise KeyboardInterrupt

    path = tmp_path / "state.pt"
    with pytest.raises(KeyboardInterrupt):
        train(digits, on_epoch=kill, checkpoint=path, record_samples=True)
    resumed, _ = train(digits, checkpoint=path, record_samples=True)
    whole, _ = train(digits, record_samples=True)
    for name in ("losses", "margins", "predictions"):
        assert torch.equal(getattr(resumed.dynamics, name), getattr(whole.dynamics, name))


def test_a_checkpoint_without_a_record_cannot_be_gone_on_with(digits, tmp_path):
    train(digits, epochs=1, checkpoint=tmp_path / "state.pt")
    with pytest.raises(ValueError, match=r"^checkpoint: .*record_samples"):
        train(digits, epochs=2, checkpoint=tmp_path / "state.pt", record_samples=True)


def test_outputs_that_are_no_numbers_are_recorded_as_such():
    recorder = Recorder(torch.tensor([0, 1]))
    recorder.record(torch.tensor([[float("nan"), 1.0, 0.0], [0.0, 3.0, 1.0]]))
    assert recorder.dynamics.losses.isnan().tolist() == [[True, False]]
    assert recorder.dynamics.margins[0, 1].item() == 2
    assert recorder.dynamics.predictions.tolist() == [[NO_CLASS, 1]]


@pytest.mark.parametrize("outputs", [torch.zeros(2, 1), torch.zeros(2), torch.zeros(2, 3, 4)])
def test_outputs_that_are_no_class_scores_are_refused(outputs):
    with pytest.raises(ValueError, match="record_samples"):
        Recorder(torch.tensor([0, 0])).record(outputs)


@pytest.mark.parametrize(
    ("classes", "dtype"), [(10, torch.int16), (32_768, torch.int16), (40_000, torch.int32)]
)
def test_classes_of_any_number_are_recorded_and_proposed(classes, dtype):
    labels = torch.tensor([1, classes - 1, classes // 2, 5])
    predicted = torch.tensor([classes - 1, classes - 2, classes // 2, 0])
    recorder = Recorder(labels)
    for _ in range(3):
        recorder.record(nn.functional.one_hot(predicted, classes).float())
    assert recorder.dynamics.predictions.dtype == dtype
    assert recorder.dynamics.predictions.tolist() == [predicted.tolist()] * 3
    found = detect(recorder.dynamics, labels)
    assert found.proposed.tolist() == predicted.tolist()


def test_the_proposed_class_is_the_lowest_of_those_predicted_most_often():
    generator = torch.Generator().manual_seed(0)
    predictions = torch.randint(-1, 4, (6, 60), generator=generator, dtype=torch.int16)
    predictions[:, 0] = NO_CLASS
    numbers = torch.rand(6, 60, generator=generator)
    found = detect(
        TrainingDynamics(numbers, numbers, predictions), torch.arange(60) % 4, early_share=1.0
    ).proposed
    for sample in range(60):
        votes = Counter(each for each in predictions[:, sample].tolist() if each != NO_CLASS)
        most = max(votes.values(), default=0)
        expected = min((each for each, count in votes.items() if count == most), default=NO_CLASS)
        assert found[sample] == expected


def test_wrapped_classes_of_earlier_versions_are_refused():
    numbers = torch.zeros(1, 2)
    with pytest.raises(ValueError, match="^predictions: hold the class -25537"):
        TrainingDynamics(numbers, numbers, torch.tensor([[3, -25537]], dtype=torch.int16))
