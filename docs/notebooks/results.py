# %% [markdown]
# # Read and plot results
#
# A small study is run here, so that there is something to read. Your own folder of `ncsam study` reads the same way.

# %%
# Installs ncsam where it is missing, such as in Colab: upload the wheel beside this notebook, or name a git address.
import importlib.util
import subprocess
import sys

SOURCE = "ncsam-0.2.0-py3-none-any.whl[data]"
if importlib.util.find_spec("ncsam") is None:
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", SOURCE], check=True)

# %%
from pathlib import Path

STUDY = """
name = "small"
dataset = "digits"
seeds = [0, 1]
[model]
name = "mlp"
hidden = [32]
[noise]
rates = [0.0, 0.4]
[training]
epochs = 15
[[methods]]
name = "plain"
label = "SGD"
[[methods]]
name = "sam"
label = "SAM"
rho = 0.2
[measure]
samples = 300
surface_rates = [0.4]
surface_seeds = [0]
surface_steps = 11
line_steps = 11
density_steps = 15
density_probes = 2
"""
Path("small.toml").write_text(STUDY)

# %% [markdown]
# In a terminal: `ncsam study small.toml --out results/small`. In Python:

# %%
from rich.console import Console

from analysis.engine.whole_study import run_study
from analysis.plan import read_study

folder = Path("results/small")
outcome = run_study(read_study(Path("small.toml")), folder, console=Console(quiet=True))
print(len(outcome.table), "runs finished,", len(outcome.failed), "failed")

# %% [markdown]
# ## All runs as one table

# %%
from analysis import store

table = store.read_table(folder)
columns = ["test_accuracy", "memorized", "top_eigenvalue_observed", "sharpness_observed"]
table.groupby(["noise_rate", "method"], sort=False)[columns].mean().round(3)

# %% [markdown]
# ## The history of each run

# %%
import figures

figures.training_curves(store.read_histories(folder))

# %% [markdown]
# ## Surfaces, lines, spectra

# %%
planes = [(run.method, plane) for run, plane in store.read_results(folder, "surface/plane-observed")]
figures.contours(planes, loss_name="training loss, observed labels", about="digits, 40% wrong labels.")

# %% [markdown]
# A run is one HDF5 file. `landscape.load` gives back the objects; h5py and xarray open the file too.

# %%
import h5py

from landscape import load

(path, *_) = store.run_files(folder)
print(load(path, "curvature/observed/top_eigenvalues").values)
with h5py.File(path) as run:
    print({name: run["history"][name].attrs["units"] for name in ("train_loss", "test_accuracy")})

# %% [markdown]
# ## What the claims say
#
# Two seeds at one noise rate cannot support a claim, and the verdicts say so.

# %%
from analysis.claims import judge

for judgement in judge(table):
    if judgement.verdict != "not measured":
        print(judgement.claim.id, judgement.verdict, "-", judgement.claim.statement)
