# %% [markdown]
# # Measure my own checkpoint
#
# `landscape` takes any module, any mean loss and any data. It needs nothing of how the model was trained, and it
# never changes your model. Replace the first part by your own model, data and checkpoint.

# %%
# Installs ncsam where it is missing, such as in Colab: upload the wheel beside this notebook, or name a git address.
import importlib.util
import subprocess
import sys

SOURCE = "ncsam-0.2.0-py3-none-any.whl[data]"
if importlib.util.find_spec("ncsam") is None:
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", SOURCE], check=True)

# %% [markdown]
# ## Your model and data
#
# Here: a small convolutional network on 8x8 digits, trained for a moment and saved.

# %%
import torch
from sklearn.datasets import load_digits
from torch import nn

torch.set_num_threads(2)
torch.manual_seed(0)
digits = load_digits()
images = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16
classes = torch.tensor(digits.target)


def build():
    """The architecture of the checkpoint."""
    return nn.Sequential(
        *(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(128, 10)),
    )


model = build()
optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
for _ in range(5):
    for batch in torch.randperm(1500).split(64):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images[batch]), classes[batch]).backward()
        optimizer.step()
torch.save(model.state_dict(), "checkpoint.pt")

# %% [markdown]
# ## The mean loss around the checkpoint

# %%
from landscape import Objective

model = build()
model.load_state_dict(torch.load("checkpoint.pt"))
objective = Objective(model, nn.CrossEntropyLoss(), (images[:1500], classes[:1500]))
print(f"{objective.n_parameters} parameters; {objective.evaluate()}")

# %% [markdown]
# ## Curvature
#
# The residual of an eigenvalue bounds its error. The trace has a 95% interval from the spread of its probes. The
# eigenvectors that were found take out most of that spread.

# %%
from landscape import spectral_density, top_eigenvalues, trace

eigen = top_eigenvalues(objective, k=3, seed=0)
for value, error, converged in zip(eigen.values, eigen.errors, eigen.converged, strict=True):
    print(f"eigenvalue {value:.3f} ± {error:.1g}, converged: {converged}")
whole = trace(objective, deflate=eigen, seed=0)
print(f"trace {whole.value:.1f}, 95% interval {whole.low:.1f} to {whole.high:.1f}")

# %%
import figures

density = spectral_density(objective, steps=30, probes=3, seed=0)
figures.spectra([("my checkpoint", density)], matrix_name="Hessian of the training loss", about="digits.")

# %% [markdown]
# ## Sharpness and a surface

# %%
from landscape import filter_normalized_directions, sharpness, surface

worst = sharpness(objective, rho=0.1, seed=0)
print(f"the loss rises by {worst.value:.3f} nat within a radius of 0.1, converged: {worst.converged}")
plane = surface(objective, filter_normalized_directions(objective, 2, seed=0), steps=15)
figures.contours([("my checkpoint", plane)], loss_name="training loss", about="digits.")

# %% [markdown]
# ## Keep the results
#
# One HDF5 file holds them all, with units. `load` gives back the objects, and xarray opens the groups.

# %%
from landscape import load, save

for name, result in (("eigenvalues", eigen), ("trace", whole), ("density", density), ("plane", plane)):
    save("my_landscape.h5", name, result)
print(load("my_landscape.h5", "eigenvalues").values)

# %% [markdown]
# The same without a script: `ncsam measure checkpoint.pt --model my_models:build --data my_data:load`.
