# %% [markdown]
# # Quickstart
#
# Two networks see the same digits with the same 40% of wrong labels. One is trained by SGD, the other by SAM. Which
# is more accurate, how many wrong labels does each memorize, and in which landscape does each end?

# %%
# Installs ncsam where it is missing, such as in Colab: upload the wheel beside this notebook, or name a git address.
import importlib.util
import subprocess
import sys

SOURCE = "ncsam-0.2.0-py3-none-any.whl[data]"
if importlib.util.find_spec("ncsam") is None:
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", SOURCE], check=True)

# %% [markdown]
# ## Data with wrong labels
#
# `noisy.observed` are the labels that training sees. `noisy.clean` are the true ones, which only measurements use.

# %%
import torch
from torch import nn

from ncsam import SAM, Plain, build_model, corrupt_labels, fit, load_dataset

torch.set_num_threads(2)
data = load_dataset("digits")
noisy = corrupt_labels(data.train.targets, kind="symmetric", rate=0.4, seed=0)
print(len(data.train), "training samples,", int(noisy.is_wrong.sum()), "of them with a wrong label")

# %% [markdown]
# ## Train
#
# Both networks start from the same weights and see the samples in the same order.


# %%
def trained(method_class, **settings):
    """A network and the history of its training."""
    model = build_model("mlp", data.input_shape, data.num_classes, seed=0, hidden=[64])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    method = method_class(model, nn.CrossEntropyLoss(), **settings)
    return model, fit(method, optimizer, data.train, noisy, data.test, epochs=40, batch_size=64, seed=0)


networks = {"SGD": trained(Plain), "SAM": trained(SAM, rho=0.2)}
for name, (_, history) in networks.items():
    accuracy, memorized = (history.metrics[key][-1] for key in ("test_accuracy", "memorized"))
    print(f"{name}: accuracy {accuracy:.1%}, wrong labels memorized {memorized:.1%}")

# %% [markdown]
# ## Measure
#
# `landscape` measures any PyTorch model. Each number comes with its error.

# %%
from landscape import Objective, filter_normalized_directions, sharpness, surface, top_eigenvalues

objectives = {
    name: Objective(model, nn.CrossEntropyLoss(), (data.train.inputs, noisy.observed))
    for name, (model, _) in networks.items()
}
for name, objective in objectives.items():
    eigen = top_eigenvalues(objective, seed=0)
    worst = sharpness(objective, rho=0.5, seed=0)
    print(f"{name}: top eigenvalue {eigen.values[0]:.2f} ± {eigen.errors[0]:.1g}", end="; ")
    print(
        f"worst rise within a radius of 0.5: {worst.value:.2f} {worst.loss_unit}, converged: {worst.converged}"
    )

# %% [markdown]
# ## Draw
#
# The same two directions, scaled to the filters of each network, span both planes.

# %%
import figures

planes = {
    name: surface(objective, filter_normalized_directions(objective, 2, seed=0), steps=15)
    for name, objective in objectives.items()
}
figures.shaded_relief(
    [(name, f"loss at the center {plane.center_loss:.2f} nat", plane) for name, plane in planes.items()],
    loss_name="training loss",
    about="digits, 40% wrong labels.",
)
