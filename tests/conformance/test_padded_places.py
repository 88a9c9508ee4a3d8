"""Outputs at padded places, which torch's encoders leave out without a gradient: right where no loss reads them."""

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from landscape import Objective, filter_normalized_directions, line
from tests.conformance.right import D, assert_right

COUNT, LENGTH = 12, 7
GENERATOR = torch.Generator().manual_seed(1)
WORDS = torch.randint(0, 11, (COUNT, LENGTH), generator=GENERATOR)
LENGTHS = torch.randint(2, LENGTH + 1, (COUNT,), generator=GENERATOR)
PADDED = torch.arange(LENGTH) >= LENGTHS[:, None]
BATCH = {"words": WORDS, "padded": PADDED, "labels": torch.where(PADDED, -100, WORDS % 3)}


class Tagger(nn.Module):
    def __init__(self, **options):
        super().__init__()
        torch.manual_seed(0)
        layer = nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True)
        self.embed, self.encode, self.head = (
            nn.Embedding(11, 8),
            nn.TransformerEncoder(layer, 2, **options),
            nn.Linear(8, 3),
        )

    def forward(self, words, padded):
        return self.head(self.encode(self.embed(words), src_key_padding_mask=padded))


def of_labels(outputs, batch):
    return cross_entropy(outputs.flatten(0, 1), batch["labels"].flatten())


def of_first_words(outputs, batch):
    return cross_entropy(outputs[:, 0], batch["labels"][:, 0])


def of_all_places(outputs, batch):
    return cross_entropy(outputs.mean(1), batch["labels"][:, 0])


def almost_flat(outputs, batch):
    """A hinge that the model's own scores do not reach."""
    return of_first_words(outputs, batch) + (outputs - 20.0).clamp_min(0).mean()


def run(model, batch):
    return model(batch["words"], batch["padded"])


def count(batch):
    return (batch["labels"] >= 0).sum()


@pytest.mark.parametrize("keep", ["all", "none"])
@pytest.mark.parametrize("options", [{}, {"enable_nested_tensor": False}])
@pytest.mark.parametrize(("loss_fn", "counts"), [(of_labels, count), (of_first_words, None)])
def test_a_loss_that_leaves_padded_places_out_is_measured(loss_fn, counts, options, keep):
    model = Tagger(**options).to(D)
    objective = Objective(model, loss_fn, [BATCH], forward=run, count=counts, keep=keep)
    assert_right(objective, model, loss=lambda model: loss_fn(run(model, BATCH), BATCH))
    right = loss_fn(run(model, BATCH), BATCH).item()
    assert objective.value() == pytest.approx(right, rel=1e-12)
    found = line(objective, filter_normalized_directions(objective, 1, seed=0), steps=3)
    assert found.loss[1] == pytest.approx(right, rel=1e-9)
    # the caller's model is as it was
    assert model.encode.use_nested_tensor == options.get("enable_nested_tensor", True)


@pytest.mark.parametrize("loss_fn", [of_all_places, almost_flat])
def test_a_loss_that_reads_padded_places_is_refused_with_the_remedy(loss_fn):
    with pytest.raises(ValueError, match="padded places.*enable_nested_tensor=False"):
        Objective(Tagger().to(D), loss_fn, BATCH, forward=run)


def of_unmasked_places(outputs, batch):
    scores, is_padded = outputs
    return cross_entropy(scores[~is_padded], (batch["words"] % 3)[~is_padded])


def test_a_mask_among_the_outputs_stays_a_mask_where_padded_places_are_compared():
    def with_mask(model, batch):
        return run(model, batch), batch["padded"]

    model = Tagger().to(D)
    objective = Objective(model, of_unmasked_places, [BATCH], forward=with_mask, count=count)
    assert_right(objective, model, loss=lambda model: of_unmasked_places(with_mask(model, BATCH), BATCH))


def test_it_is_right_with_the_remedy():
    model = Tagger(enable_nested_tensor=False).to(D)
    objective = Objective(model, of_all_places, BATCH, forward=run)
    assert_right(objective, model, loss=lambda model: of_all_places(run(model, BATCH), BATCH))


class MoreWhereRecorded(nn.Module):
    """Computes a second output where torch records derivatives; otherwise it is 0."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.head = nn.Linear(5, 3)

    def forward(self, x):
        scores = self.head(x)
        return scores, scores.square() if scores.requires_grad else torch.zeros_like(scores)


@pytest.mark.parametrize("weight", [0.0, 1e-3])
def test_an_output_that_differs_where_torch_records_may_differ_if_the_loss_does_not_read_it(weight):
    model, inputs, targets = MoreWhereRecorded().to(D), torch.randn(9, 5, dtype=D), torch.arange(9) % 3

    def loss_fn(outputs, targets):
        loss = cross_entropy(outputs[0], targets)
        return loss + weight * outputs[1].mean() if weight else loss

    def objective():
        return Objective(model, loss_fn, (inputs, targets))

    if weight:
        with pytest.raises(ValueError, match="differ between a pass that torch records"):
            objective()
    else:
        assert_right(objective(), model, loss=lambda model: loss_fn(model(inputs), targets))
