"""Any method of the SAM family in a LightningModule with automatic optimization."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from torch import Tensor

from ncsam.integrations.replay import computed_by_the_loop, fill_gradients
from ncsam.methods.as_given import as_given
from ncsam.methods.method import Method

PRECISIONS = ("32-true", "64-true", "bf16-mixed", "bf16-true")

__all__ = ["SharpnessAware", "computed_by_the_loop"]


class SharpnessAware:
    """Makes a LightningModule train with a method of `ncsam`; accumulation, clipping and bf16 stay the Trainer's.

    ::

        class Classifier(SharpnessAware, LightningModule):
            def configure_method(self):
                return SAM(self, computed_by_the_loop, rho=0.05)

            def training_step(self, batch, batch_idx):     # as ever
                ...

    `training_step` runs again at the perturbed weights. Its logs there are dropped. Each micro-batch and each
    rank perturbs by its own gradient (m-sharpness, Foret et al. 2021, section 4).
    """

    _method: Method | None = None
    _last_call: tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "training_step" in vars(cls):
            setattr(cls, "training_step", _remembered(vars(cls)["training_step"]))  # noqa: B010

    def configure_method(self) -> Method:
        """The method, made around `self` with the loss `computed_by_the_loop`."""
        raise NotImplementedError(
            "configure_method: return a method, such as SAM(self, computed_by_the_loop, rho=0.05)"
        )

    def backward(self, loss: Tensor, *_: Any, **__: Any) -> None:
        """Fills `.grad` with the method's gradient, in place of `loss.backward()`.

        Raises:
            ValueError: the Trainer has a precision or a strategy with which the passes would be wrong.
        """
        trainer: Any = self.trainer  # type: ignore[attr-defined]
        if self._method is None:
            _check(trainer)
            self._method = self.configure_method()
        if trainer.max_epochs and trainer.max_epochs > 0:
            self._method.progress = min(1.0, (trainer.current_epoch + 1) / trainer.max_epochs)
            self._method.epoch_share = 1 / trainer.max_epochs

        def again() -> Tensor:
            step, arguments, keywords = self._last_call
            with _without_logging(self), trainer.precision_plugin.train_step_context():
                output = step(self, *as_given(arguments), **as_given(keywords))
            return _loss_in(output) / trainer.accumulate_grad_batches

        fill_gradients(self._method, lambda: loss, again, hooks=trainer.world_size > 1)


def _remembered(step: Callable[..., Any]) -> Callable[..., Any]:
    """A `training_step` that records its arguments for further calls."""

    @wraps(step)
    def noted(self: SharpnessAware, *arguments: Any, **keywords: Any) -> Any:
        self._last_call = step, arguments, keywords
        return step(self, *as_given(arguments), **as_given(keywords))

    return noted


def _loss_in(output: Any) -> Tensor:
    loss: Tensor = output if isinstance(output, Tensor) else output["loss"]
    return loss


@contextmanager
def _without_logging(module: Any) -> Iterator[None]:
    """A context in which `self.log` and `self.log_dict` do nothing."""
    for name in ("log", "log_dict"):
        vars(module)[name] = lambda *_, **__: None
    try:
        yield
    finally:
        for name in ("log", "log_dict"):
            del vars(module)[name]


def _check(trainer: Any) -> None:
    if str(trainer.precision) not in PRECISIONS:
        raise ValueError(
            f"precision: must be one of {', '.join(PRECISIONS)} with SharpnessAware, got {trainer.precision!r}; the "
            "loss scaling of 16-mixed knows of one pass a step"
        )
    if not isinstance(trainer.strategy, SingleDeviceStrategy | DDPStrategy):
        raise ValueError(
            f"strategy: must be one device or DDP with SharpnessAware, got {type(trainer.strategy).__name__}, which "
            "spreads the weights"
        )
