# %% [markdown]
# # Find my wrong labels
#
# A network learns labels that fit the pattern first, and wrong ones later. The losses of single samples in
# the first epochs therefore tell which labels to look at again ("small loss", as in Co-teaching, Han et al. 2018).
# Here 20% of the labels are made wrong, so that the answer can be checked.

# %%
# Installs ncsam where it is missing, such as in Colab: upload the wheel beside this notebook, or name a git address.
import importlib.util
import subprocess
import sys

SOURCE = "ncsam-0.2.0-py3-none-any.whl[data]"
if importlib.util.find_spec("ncsam") is None:
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", SOURCE], check=True)
# %matplotlib inline

# %%
import torch
from torch import nn

from ncsam import SAM, build_model, corrupt_labels, fit, load_dataset, predict

torch.set_num_threads(2)
data = load_dataset("digits")
noisy = corrupt_labels(data.train.targets, kind="symmetric", rate=0.2, seed=0)

# %% [markdown]
# With labels of your own, of which nobody knows which are wrong, `human_labels(labels, labels)` stands in the place of
# `corrupt_labels`. The cells that use `noisy.is_wrong` then have nothing to say.
#
# ## The loss of each sample after each epoch
#
# SAM memorizes later than SGD, which leaves more time to tell the labels apart.

# %%
model = build_model("mlp", data.input_shape, data.num_classes, seed=0, hidden=[64])
optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
method = SAM(model, nn.CrossEntropyLoss(), rho=0.1)
losses = []


def keep_losses(epoch, metrics, model):
    """Called after each epoch."""
    outputs = predict(model, data.train)
    losses.append(nn.functional.cross_entropy(outputs, noisy.observed, reduction="none"))


history = fit(
    method,
    optimizer,
    data.train,
    noisy,
    data.test,
    epochs=30,
    batch_size=64,
    seed=0,
    on_epoch=keep_losses,
)
losses = torch.stack(losses)
print("losses (epochs, samples):", tuple(losses.shape))

# %%
from matplotlib import pyplot

epochs = range(1, len(losses) + 1)
fig, ax = pyplot.subplots(figsize=(6, 3))
ax.plot(epochs, losses[:, ~noisy.is_wrong].median(1).values, label="right labels")
ax.plot(epochs, losses[:, noisy.is_wrong].median(1).values, label="wrong labels")
ax.set(xlabel="epoch", ylabel="median loss (nat)")
_ = ax.legend()

# %% [markdown]
# ## The labels to look at first
#
# The mean loss over the epochs orders the samples.

# %%
suspicion = losses.mean(0)
order = suspicion.argsort(descending=True)
for count in (50, 100, 200, int(noisy.is_wrong.sum())):
    found = noisy.is_wrong[order[:count]].double().mean().item()
    print(f"of the {count} most suspicious labels {found:.0%} are wrong (20% of all are)")

# %%
fig, axes = pyplot.subplots(2, 8, figsize=(9, 2.8))
predicted = predict(model, data.train).argmax(1)
for ax, index in zip(axes.flatten(), order.tolist(), strict=False):
    ax.imshow(data.train.pixels[index].squeeze(), cmap="gray_r")
    ax.set_title(f"label {noisy.observed[index]}, net {predicted[index]}", fontsize=7)
    ax.axis("off")
