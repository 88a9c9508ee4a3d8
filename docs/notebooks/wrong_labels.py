# %% [markdown]
# # Find my wrong labels
#
# A network learns labels that fit the pattern first, and wrong ones later. What it says of single samples on the
# way therefore tells which labels to look at again. Here 20% of the labels are made wrong, so that the answer can be
# checked. The page [Which labels are wrong](../wrong-labels.md) explains the criteria.

# %%
# Installs ncsam where it is missing, such as in Colab: upload the wheel beside this notebook, or name a git address.
import importlib.util
import subprocess
import sys

SOURCE = "ncsam-0.2.0-py3-none-any.whl[data]"
if importlib.util.find_spec("ncsam") is None:
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", SOURCE], check=True)

# %%
import torch
from torch import nn

import figures
from ncsam import SAM, build_model, corrupt_labels, detect, fit, load_dataset

torch.set_num_threads(2)
data = load_dataset("digits")
noisy = corrupt_labels(data.train.targets, kind="symmetric", rate=0.2, seed=0)

# %% [markdown]
# With labels of your own, of which nobody knows which are wrong, `human_labels(labels, labels)` stands in the place of
# `corrupt_labels`. The cells that use `noisy.is_wrong` then have nothing to say.
#
# ## What the network says of each sample after each epoch
#
# SAM memorizes later than SGD, which leaves more time to tell the labels apart.

# %%
model = build_model("mlp", data.input_shape, data.num_classes, seed=0, hidden=[64])
optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
method = SAM(model, nn.CrossEntropyLoss(), rho=0.1)
history = fit(
    method, optimizer, data.train, noisy, data.test, epochs=30, batch_size=64, seed=0, record_samples=True
)
print("losses (epochs, samples):", tuple(history.dynamics.losses.shape))

# %%
figures.label_scores(
    history.dynamics.losses, noisy.is_wrong, score_name="loss (nat)", about="Digits, an MLP trained by SAM."
)

# %% [markdown]
# ## The labels to look at first
#
# `detect` never reads the true labels, also where `noisy` holds them.

# %%
found = detect(history, noisy.observed, ids=data.train_indices)
order = found["small-loss"].order
for count in (50, 100, 200, int(noisy.is_wrong.sum())):
    share = noisy.is_wrong[order[:count]].double().mean().item()
    print(f"of the {count} most suspicious labels {share:.0%} are wrong (20% of all are)")

# %% [markdown]
# Where the truth is known, each criterion can be compared with it.

# %%
for each in found.quality(noisy.is_wrong):
    auroc, precision = each.auroc, each.precision_at_rate
    print(f"{each.criterion:18} AUROC {auroc.value:.3f} ({auroc.low:.3f} to {auroc.high:.3f}), ", end="")
    print(f"precision at the noise rate {precision.value:.2f}")

# %%
first = order[:24]
figures.contact_sheet(
    data.train.pixels[first],
    found.labels[first],
    found.proposed[first],
    ids=found.ids[first],
    is_wrong=noisy.is_wrong[first],
    about="Digits, the most suspicious by small loss.",
)

# %% [markdown]
# The table holds every sample, the most suspicious first.

# %%
from pathlib import Path

found.write_csv("suspects.csv", by="small-loss")
print("\n".join(Path("suspects.csv").read_text().splitlines()[:4]))
