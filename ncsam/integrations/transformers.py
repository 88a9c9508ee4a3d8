"""Any method of the SAM family in Hugging Face's Trainer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from accelerate.utils import DistributedType
from torch import Tensor, nn
from transformers import Trainer

from ncsam.integrations.replay import computed_by_the_loop, fill_gradients
from ncsam.methods.as_given import as_given
from ncsam.methods.method import Method

ONE_MODEL_A_PROCESS = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU)


class SharpnessAwareTrainer(Trainer):
    """A Trainer whose gradient is that of a method of `ncsam`; accumulation, clipping and bf16 stay the Trainer's.

    ::

        def method(model, loss):
            return SAM(model, loss, rho=0.05)

        SharpnessAwareTrainer(model, arguments, train_dataset=data, method=method).train()

    Each micro-batch and each rank perturbs by its own gradient (m-sharpness, Foret et al. 2021, section 4).

    Args:
        method: (model, loss function) -> a method of the two.
        arguments: the arguments of `transformers.Trainer`.

    Raises:
        ValueError: at the beginning of a training, if its settings would make the passes wrong.
    """

    def __init__(
        self, *arguments: Any, method: Callable[[nn.Module, Callable[..., Tensor]], Method], **options: Any
    ) -> None:
        super().__init__(*arguments, **options)
        if (
            self.args.fp16
            or self.args.n_gpu > 1
            or self.accelerator.distributed_type not in ONE_MODEL_A_PROCESS
        ):
            raise ValueError(
                "args: SharpnessAwareTrainer takes float32 or bf16, and one device a process, which holds the whole "
                "model; leave out fp16, and start one process a GPU"
            )
        self.method = method(self.accelerator.unwrap_model(self.model), computed_by_the_loop)

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """One micro-batch: the loss of the Trainer's own step, and the method's gradient of it."""
        bare = self.accelerator.unwrap_model(model)
        self.method.progress = min(1.0, (self.state.global_step + 1) / max(1, self.state.max_steps))

        def loss_of(module: nn.Module) -> Tensor:
            found: list[Tensor] = []
            backward = self.accelerator.backward
            self.accelerator.backward = lambda loss, **_: found.append(loss)
            try:
                super(SharpnessAwareTrainer, self).training_step(
                    module, dict(as_given(inputs, module)), num_items_in_batch
                )
            finally:
                self.accelerator.backward = backward
            return found[0] / self.accelerator.gradient_accumulation_steps

        loss = fill_gradients(
            self.method, lambda: loss_of(model), lambda: loss_of(bare), hooks=model is not bare
        )
        return loss * self.accelerator.gradient_accumulation_steps
