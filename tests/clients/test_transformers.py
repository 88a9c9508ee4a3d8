"""Small random models of transformers: losses and products against those of all tokens at once, in float64."""

import pytest
import torch
from torch import nn

from landscape import Objective, tasks
from ncsam import SAM
from tests.clients.client import CHECKS, Client

transformers = pytest.importorskip("transformers")

D = torch.float64
SIZES = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 12}
SAMPLES, LENGTH, WORDS = 9, 7, 11


def batch_of(labels):
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(3, WORDS, (SAMPLES, LENGTH), generator=generator)
    lengths = torch.randint(2, LENGTH + 1, (SAMPLES, 1), generator=generator)
    mask = (torch.arange(LENGTH) < lengths).long()
    return {"input_ids": ids, "attention_mask": mask, "labels": labels(ids, mask)}


def without_dropout(config):
    for name, value in config.to_dict().items():
        if "drop" in name and isinstance(value, float):
            setattr(config, name, 0.0)
    return config


def classes(ids, _):
    return ids.sum(1) % 3


def words(ids, mask):
    return ids.masked_fill(mask == 0, -100)


BERT = {"max_position_embeddings": LENGTH, **SIZES}
DISTILBERT = {"dim": 8, "n_layers": 1, "n_heads": 2, "hidden_dim": 12}
GPT2 = {"n_embd": 8, "n_layer": 1, "n_head": 2, "bos_token_id": 1, "eos_token_id": 2}
BART = {
    "d_model": 8,
    **{f"{part}_layers": 1 for part in ("encoder", "decoder")},
    **{f"{part}_attention_heads": 2 for part in ("encoder", "decoder")},
    **{f"{part}_ffn_dim": 12 for part in ("encoder", "decoder")},
    **{"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "decoder_start_token_id": 2},
}
LONG = {"max_position_embeddings": LENGTH}
LLAMA = {**SIZES, **LONG, "num_key_value_heads": 1, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
MODELS = {
    "bert": ("BertForSequenceClassification", {**BERT, "num_labels": 3}, classes, tasks.hugging_face),
    "distilbert": (
        "DistilBertForSequenceClassification",
        {**DISTILBERT, **LONG, "num_labels": 3},
        classes,
        tasks.hugging_face,
    ),
    "masked language": ("BertForMaskedLM", BERT, words, tasks.hugging_face),
    "gpt2": ("GPT2LMHeadModel", {**GPT2, "n_positions": LENGTH}, words, tasks.causal_language_model),
    "llama": ("LlamaForCausalLM", LLAMA, words, tasks.causal_language_model),
    # not T5, whose normalization computes in float32
    "encoder and decoder": (
        "BartForConditionalGeneration",
        {**BART, **LONG},
        words,
        lambda: tasks.hugging_face(sequence_to_sequence=True),
    ),
}
"""Name -> class of the model, sizes, labels of a batch, and how the model is run."""
CAUSAL = ("gpt2", "llama")


def normalized_in_float64(model):
    """The model, with Llama's normalization by torch's own formula: transformers' computes in float32."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child).__name__ == "LlamaRMSNorm":
                setattr(module, name, nn.RMSNorm(len(child.weight), child.variance_epsilon))
    return model


def built(name):
    """The model without Dropout, its labels, and its task."""
    kind, sizes, labels, task = MODELS[name]
    model = getattr(transformers, kind)
    config = model.config_class(vocab_size=WORDS, **sizes)
    return normalized_in_float64(model(without_dropout(config))), labels, task()


def case(name, cut):
    """(objective, loss of all labels at once; transformers' own loss of tokens is one of float32)."""
    torch.manual_seed(0)
    model, labels, task = built(name)
    model = model.to(D).eval()
    batch = batch_of(labels)
    parts = {key: value.split(cut) for key, value in batch.items()}
    batches = [dict(zip(parts, values, strict=True)) for values in zip(*parts.values(), strict=True)]
    loss = tasks.next_token_loss if name in CAUSAL else tasks.label_loss
    objective = Objective(model, loss, batches, chunk_size=cut, **task)

    def truth(model):
        logits, targets = model(**batch).logits, batch["labels"]
        if name in CAUSAL:
            logits, targets = logits[:, :-1], targets[:, 1:]
        kept = targets != -100
        chosen = logits.log_softmax(-1)[kept].gather(1, targets[kept].unsqueeze(1))
        return -chosen.sum() / kept.sum()

    return objective, truth


@pytest.mark.parametrize("cut", [2, 9])
@pytest.mark.parametrize("name", MODELS)
def test_loss_and_derivatives_are_those_of_all_labels_at_once(name, cut):
    client = client_of(name)
    client.objective, _ = case(name, cut)
    CHECKS["derivatives"](client)


@pytest.mark.parametrize("name", MODELS)
def test_traced_products_are_the_direct_ones(name):
    objective, _ = case(name, 5)
    vector = torch.ones_like(objective.theta)
    direct = objective.hvp(vector), objective.ggnvp(vector)
    traced, _ = case(name, 5)
    traced.linearize = True
    torch.testing.assert_close(traced.hvp(vector), direct[0])
    torch.testing.assert_close(traced.ggnvp(vector), direct[1])


def client_of(name):
    objective, truth = case(name, 4)
    torch.manual_seed(0)
    model, labels, task = built(name)
    batch = batch_of(labels)
    loss_fn = tasks.next_token_loss if name in CAUSAL else tasks.label_loss
    few = [
        (p.numel(), key) for key, p in model.named_parameters() if key in objective.names and p.numel() > 2
    ]
    return Client(
        model.to(D),
        truth,
        objective,
        tuple(key for _, key in sorted(few)[:3]),
        lambda model, rho: SAM(model, loss_fn, rho=rho, **task),
        (batch,),
    )


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("name", MODELS)
def test_all_measures_are_those_of_plain_torch(name, check):
    CHECKS[check](client_of(name))


@pytest.mark.parametrize("check", CHECKS)
def test_all_measures_of_images_are_those_of_plain_torch(check):
    torch.manual_seed(0)
    config = transformers.ViTConfig(image_size=8, patch_size=4, num_channels=1, num_labels=3, **SIZES)
    model = transformers.ViTForImageClassification(without_dropout(config)).to(D)
    images = torch.randn(6, 1, 8, 8, dtype=D, generator=torch.Generator().manual_seed(2))
    batch, task = {"pixel_values": images, "labels": torch.arange(6) % 3}, tasks.hugging_face()
    client = Client(
        model,
        lambda model: nn.functional.cross_entropy(model(images).logits, batch["labels"]),
        Objective(model, tasks.label_loss, batch, chunk_size=4, **task),
        ("classifier.weight",),
        lambda model, rho: SAM(model, tasks.label_loss, rho=rho, **task),
        (batch,),
    )
    CHECKS[check](client)


def test_a_model_that_returns_its_own_loss_needs_no_task():
    torch.manual_seed(0)
    model, labels, _ = built("bert")
    model, batch = model.to(D).eval(), batch_of(labels)
    objective = Objective(model, lambda outputs, _: outputs.loss, batch, chunk_size=4)
    assert objective.value() == pytest.approx(model(**batch).loss.item(), rel=1e-12)
    assert isinstance(model, nn.Module)
