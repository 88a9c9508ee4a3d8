"""Words of several languages, and the transformer that tells these apart."""

import gzip
import json
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call, jvp, vjp

from analysis.plan import read_study
from analysis.plan.against_data import check_against_data
from analysis.plan.errors import StudyError
from ncsam import NCSAM, NOISE_KINDS, build_model, corrupt_labels, fit, load_dataset, noise_options
from ncsam.datasets import words as module


@pytest.fixture(scope="module")
def dataset():
    return load_dataset("word-languages")


def text(tokens):
    return bytes(tokens.tolist()).rstrip(b"\0").decode()


def test_the_words_are_the_most_frequent_ones_of_their_language_alone_and_each_is_in_one_split(dataset):
    folder = Path(find_spec("spellchecker").submodule_search_locations[0]) / "resources"
    lists = [
        json.loads(gzip.decompress((folder / f"{name}.json.gz").read_bytes())) for name in module.LANGUAGES
    ]
    found = [[] for _ in lists]
    for split in (dataset.train, dataset.test):
        for tokens, label in zip(split.pixels, split.targets.tolist(), strict=True):
            found[label].append(text(tokens))
    known = Counter(word for counts in lists for word in counts)
    for label, counts in enumerate(lists):
        alone = [word for word in counts if known[word] == 1 and word.isalpha() and len(word) >= 3]
        alone = [word for word in alone if len(word.encode()) <= 16]
        assert sorted(found[label]) == sorted(sorted(alone, key=lambda word: (-counts[word], word))[:2500])


def test_the_split_has_equally_many_words_of_each_language(dataset):
    assert dataset.train.targets.bincount().tolist() == [2000] * 9
    assert dataset.test.targets.bincount().tolist() == [500] * 9


def test_samples_are_drawn_by_the_seed(dataset):
    first, again, other = (load_dataset("word-languages", train_samples=50, seed=s) for s in (1, 1, 2))
    assert torch.equal(first.train.pixels, again.train.pixels)
    assert not torch.equal(first.train.pixels, other.train.pixels)
    assert torch.equal(first.train.targets, dataset.train.targets[first.train_indices])


def test_tokens_stay_whole_numbers(dataset):
    assert dataset.train.inputs.dtype == torch.int64
    assert dataset.input_shape == (16,)


@pytest.mark.parametrize("kind", ["symmetric", "symmetric-all", "pair", "part-dependent", "beta"])
def test_words_take_the_kinds_of_noise_that_images_do(dataset, kind):
    assert kind in NOISE_KINDS
    options = {"inputs": dataset.train.pixels} if "inputs" in noise_options(kind) else {}
    labels = corrupt_labels(dataset.train.targets, kind=kind, rate=0.4, seed=0, **options)
    assert labels.realised_rate == pytest.approx(0.4 * (8 / 9 if kind == "symmetric-all" else 1), abs=0.01)


def test_a_missing_package_and_a_broken_list_are_named(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "find_spec", lambda _: None)
    with pytest.raises(FileNotFoundError, match=r"needs pyspellchecker: pip install 'ncsam\[data\]'"):
        module.word_languages()
    broken = tmp_path / "de.json.gz"
    broken.write_bytes(gzip.compress(b"[1, 2"))
    with pytest.raises(ValueError, match=r"de\.json\.gz: is no list of words"):
        module._read_counts(broken)


def small(**options):
    return build_model("transformer", (16,), 9, seed=0, **{"width": 8, "heads": 2, **options})


def test_the_transformer_is_torchs_own_with_the_same_weights(dataset):
    model = small().double().eval()
    tokens = dataset.train.pixels[::2000]
    is_padding = tokens == 0
    x = model.embedding(tokens) + model.positions
    for block in model.blocks:
        layer = nn.TransformerEncoderLayer(
            8, 2, 32, dropout=0.0, activation="gelu", batch_first=True, norm_first=True, dtype=torch.float64
        )
        own = {
            "self_attn.in_proj_weight": block.queries_keys_values.weight,
            "self_attn.in_proj_bias": block.queries_keys_values.bias,
            "self_attn.out_proj.weight": block.output.weight,
            "self_attn.out_proj.bias": block.output.bias,
            "linear1.weight": block.mlp[0].weight,
            "linear1.bias": block.mlp[0].bias,
            "linear2.weight": block.mlp[2].weight,
            "linear2.bias": block.mlp[2].bias,
            "norm1.weight": block.norms[0].weight,
            "norm1.bias": block.norms[0].bias,
            "norm2.weight": block.norms[1].weight,
            "norm2.bias": block.norms[1].bias,
        }
        layer.load_state_dict(own)
        x = layer(x, src_key_padding_mask=is_padding)
    words = [model.norm(row)[~padded].mean(0) for row, padded in zip(x, is_padding, strict=True)]
    torch.testing.assert_close(model(tokens), model.head(torch.stack(words)), rtol=1e-10, atol=1e-12)


def test_padding_and_the_other_words_of_a_batch_change_nothing(dataset):
    model = small().double().eval()
    tokens = dataset.train.pixels[:6]
    torch.testing.assert_close(torch.cat([model(row[None]) for row in tokens]), model(tokens))
    short = tokens[:, : int((tokens != 0).sum(1).max())]
    cut = build_model("transformer", (short.shape[1],), 9, seed=0, width=8, heads=2).double().eval()
    weights = model.state_dict()
    weights["positions"] = weights["positions"][: short.shape[1]]
    cut.load_state_dict(weights)
    torch.testing.assert_close(cut(short), model(tokens))
    assert torch.isfinite(model(torch.zeros(2, 16, dtype=torch.int64))).all()


def test_the_transformer_is_differentiated_forwards_as_backwards(dataset):
    model = small().double().eval()
    weights = {key: p.detach() for key, p in model.named_parameters()}
    direction = {key: torch.randn_like(p) for key, p in weights.items()}
    probe = torch.randn(4, 9, dtype=torch.float64)

    def outputs(point):
        return functional_call(model, point, (dataset.train.pixels[:4],))

    _, forwards = jvp(outputs, (weights,), (direction,))
    (gradient,) = vjp(outputs, weights)[1](probe)
    torch.testing.assert_close(
        (forwards * probe).sum(), sum((gradient[k] * direction[k]).sum() for k in weights)
    )


@pytest.mark.parametrize(
    ("shape", "options", "words"),
    [
        ((3, 8, 8), {}, r"^name: 'transformer' takes sequences of tokens, not inputs of shape \(3, 8, 8\)"),
        ((16,), {"width": 10, "heads": 4}, "^heads: 4 do not divide the width 10"),
    ],
)
def test_inputs_and_heads_that_do_not_fit_are_refused(shape, options, words):
    with pytest.raises(ValueError, match=words):
        build_model("transformer", shape, 9, seed=0, **options)


def test_a_transformer_learns_the_languages_under_label_noise():
    dataset = load_dataset("word-languages", train_samples=900, test_samples=300)
    labels = corrupt_labels(dataset.train.targets, rate=0.2, seed=0)
    model = build_model("transformer", dataset.input_shape, 9, seed=0, width=16, depth=1)
    method = NCSAM(model, nn.CrossEntropyLoss(), rho=0.05, flip_ratio=0.2, strength=0.1)
    optimizer = torch.optim.AdamW(method.parameters(), lr=5e-3)
    history = fit(method, optimizer, dataset.train, labels, dataset.test, epochs=8, batch_size=64, seed=0)
    # one in nine by chance
    assert history.metrics["test_accuracy"][-1] > 0.3
    assert np.isfinite(history.metrics["train_loss"]).all()


def test_the_study_that_ships_fits_its_data_and_what_mixes_tokens_is_refused_before_training(
    pytestconfig, tmp_path, dataset
):
    path = pytestconfig.rootpath / "studies/word-languages.toml"
    check_against_data(read_study(path), dataset, None)
    mixed = tmp_path / "mixed.toml"
    mixed.write_text(path.read_text().replace('label = "AdamW"', 'label = "AdamW"\nmixup = 1.0'))
    with pytest.raises(StudyError, match="mixup: tokens cannot be mixed"):
        check_against_data(read_study(mixed), dataset, None)
