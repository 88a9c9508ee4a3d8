"""Padding rows of embeddings: constants to torch as inputs, also where a tied head makes them variables."""

import warnings

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot

from landscape import GaussNewton, Hessian, Objective, sharpness
from tests.conformance.right import D

WORDS, WIDTH, COUNT, LENGTH = 7, 3, 12, 4
GENERATOR = torch.Generator().manual_seed(1)
LABELS = torch.randint(1, WORDS, (COUNT, LENGTH), generator=GENERATOR)
# the start of each sequence is the padding word, as in Marian and Whisper
STARTED = torch.cat([torch.zeros(COUNT, 1, dtype=torch.long), LABELS[:, :-1]], 1)


class Language(nn.Module):
    """Predicts the next word; the head may be tied to the embedding."""

    def __init__(self, padding_idx: int | None = 0, tied: bool = True) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.words = nn.Embedding(WORDS, WIDTH, padding_idx=padding_idx)
            self.inner = nn.Linear(WIDTH, WIDTH)
            self.head = nn.Linear(WIDTH, WORDS, bias=False)
            nn.init.normal_(self.words.weight)
        if tied:
            self.head.weight = self.words.weight
        self.to(D)

    def forward(self, words: Tensor) -> Tensor:
        return self.head(torch.tanh(self.inner(self.words(words).cumsum(1)))).movedim(-1, 1)


class Masked(Language):
    """The padding word is masked, as attention masks do."""

    def forward(self, words: Tensor) -> Tensor:
        seen = self.words(words) * (words != 0).unsqueeze(2)
        return self.head(torch.tanh(self.inner(seen.cumsum(1)))).movedim(-1, 1)


def loss_with_input_row_held(objective: Objective, row: Tensor):
    """The loss of weights (n,), whose padding row as an input is a constant."""

    def loss(theta: Tensor) -> Tensor:
        weights = objective.unflatten(theta)
        inputs = torch.cat([row[None], weights["words.weight"][1:]])
        seen = (one_hot(STARTED, WORDS).to(D) @ inputs).cumsum(1)
        hidden = torch.tanh(seen @ weights["inner.weight"].T + weights["inner.bias"])
        return cross_entropy((hidden @ weights["words.weight"].T).movedim(-1, 1), LABELS)

    return loss


@pytest.mark.parametrize("linearize", [False, True])
@pytest.mark.filterwarnings("ignore:model. row 0 of")
def test_the_hessian_is_that_of_the_loss_whose_padding_row_is_constant_as_an_input(linearize):
    """Marian, Whisper, Gemma2, and Llama with tied weights were refused."""
    model = Language()
    objective = Objective(model, cross_entropy, (STARTED, LABELS), linearize=linearize)
    right = loss_with_input_row_held(objective, model.words.weight[0].detach())
    hessian = torch.autograd.functional.hessian(right, objective.theta)
    eye = torch.eye(objective.n_parameters, dtype=D)
    torch.testing.assert_close(objective.hvp(eye), hessian, rtol=1e-9, atol=1e-11)
    assert hessian[:WIDTH].any()


@pytest.mark.filterwarnings("ignore:model. row 0 of")
def test_a_tied_padding_row_raises_no_alarm_in_any_matrix():
    objective = Objective(Language(), cross_entropy, (STARTED, LABELS))
    vector = torch.ones_like(objective.theta)
    for matrix in (Hessian, GaussNewton):
        assert torch.isfinite(matrix(objective) @ vector).all()
    assert sharpness(objective, rho=0.1, steps=2).value > 0


def test_a_warning_names_the_row_that_is_a_constant_as_an_input_and_a_variable_elsewhere():
    objective = Objective(Language(), cross_entropy, (STARTED, LABELS))
    with pytest.warns(UserWarning, match=r"row 0 of 'words\.weight' .* embedding\.padding_idx = None"):
        objective.gradient()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        objective.hvp(torch.ones_like(objective.theta))


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (Language(tied=False), STARTED),
        (Language(padding_idx=None), STARTED),
        # the padding word is no input
        (Language(), LABELS),
        (Masked(), STARTED),
    ],
    ids=["untied", "no padding", "unused", "masked"],
)
def test_a_padding_row_that_moves_the_loss_in_one_place_at_most_needs_no_warning(model, words):
    objective = Objective(model, cross_entropy, (words, LABELS))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        objective.hvp(torch.ones_like(objective.theta))


class Distances(Language):
    """Distances have no second derivative in torch, so that products are differences of gradients."""

    def forward(self, words: Tensor) -> Tensor:
        hidden = self.inner(self.words(words).sum(1, keepdim=True))
        return self.head(
            torch.cdist(hidden, torch.eye(WIDTH, dtype=D).expand(len(words), -1, -1), p=3.0)[:, 0]
        )


@pytest.mark.filterwarnings("ignore:model. products are differences")
def test_differences_in_place_of_products_do_not_move_a_padding_row():
    objective = Objective(Distances(tied=False), cross_entropy, (STARTED, LABELS[:, 0]))
    found = objective.hvp(torch.eye(objective.n_parameters, dtype=D))
    torch.testing.assert_close(found, found.T, rtol=0, atol=1e-9)
    assert not found[:, :WIDTH].any()


@pytest.mark.filterwarnings("ignore:model. row 0 of")
def test_differences_in_place_of_products_are_refused_for_a_tied_padding_row():
    objective = Objective(Distances(), cross_entropy, (STARTED, LABELS[:, 0]))
    with pytest.raises(ValueError, match=r"no second derivative .* give embedding\.padding_idx = None"):
        objective.hvp(torch.ones_like(objective.theta))
