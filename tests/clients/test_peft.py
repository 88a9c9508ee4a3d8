"""Low-rank adapters of peft: these are the variables, and the model below is frozen."""

import pytest
import torch

from landscape import Objective, tasks
from ncsam import SAM
from tests.clients.client import CHECKS, Client, D, generic

peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")


def adapted():
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=11,
        max_position_embeddings=7,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=12,
        num_labels=3,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    adapters = peft.LoraConfig(
        r=2, lora_alpha=4, lora_dropout=0.0, target_modules=["query", "value"], task_type="SEQ_CLS"
    )
    # generic: adapters begin with a factor of zero
    model = generic(peft.get_peft_model(transformers.BertForSequenceClassification(config), adapters))
    ids = torch.randint(3, 11, (7, 7), generator=torch.Generator().manual_seed(0))
    mask = (torch.arange(7) < torch.arange(1, 8).unsqueeze(1)).long()
    batch = {"input_ids": ids, "attention_mask": mask, "labels": ids.sum(1) % 3}
    task = tasks.hugging_face()
    names = tuple(name for name, parameter in model.named_parameters() if parameter.requires_grad)
    return Client(
        model,
        lambda model: torch.nn.functional.cross_entropy(
            model(input_ids=ids, attention_mask=mask).logits, batch["labels"]
        ),
        Objective(model, tasks.label_loss, batch, chunk_size=3, **task),
        tuple(name for name in names if "lora" in name),
        lambda model, rho: SAM(model, tasks.label_loss, rho=rho, **task),
        (batch,),
    )


@pytest.mark.parametrize("check", CHECKS)
def test_all_measures_are_those_of_plain_torch(check):
    CHECKS[check](adapted())


def test_the_adapters_and_the_head_are_the_variables():
    objective = adapted().objective
    assert objective.dtype == D
    assert all("lora" in name or "classifier" in name for name in objective.names)
    assert len(objective.names) == 6
