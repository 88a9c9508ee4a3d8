"""Every number in the sentences of docs/gpu.md is that of a committed table."""

import pytest

from tests.doc_pages import sentences_of, table_named

MLP, CNN, RESNET = "MLP 256-256", "CNN 16-32-64, BatchNorm", "ResNet-8"


@pytest.fixture(scope="module")
def read():
    return lambda name: table_named(f"gpu-{name}")


@pytest.fixture(scope="module")
def page():
    return sentences_of("gpu")


def product(table, model, chunk, what, column):
    (value,) = table[(table.model == model) & (table.chunk == chunk) & (table.what == what)][column]
    return value


def test_products(page, read):
    table = read("products")
    ours = [
        product(table, model, 4096, "ours, linearized", "in plain gradients") for model in (MLP, CNN, RESNET)
    ]
    assert "{} gradients for the MLP, {} for the CNN and {} for the ResNet-8".format(*ours) in page
    for chunk, words in (
        (4096, "curvlinops takes {:.1f}, {:.1f} and {:.1f} times"),
        (1024, "and {:.1f}, {:.1f} and {:.1f} times"),
    ):
        peers = [
            product(table, model, chunk, "curvlinops", "in our products") for model in (MLP, CNN, RESNET)
        ]
        assert words.format(*peers) in page
    assert f"{product(table, MLP, 1024, 'PyHessian (graph kept)', 'in our products')} of ours" in page
    direct = table[table.what == "ours, direct"]["in plain gradients"]
    assert f"costs {direct.min():.1f} to {direct.max():.1f} gradients" in page
    convolutions = table[(table.model != MLP) & ~table.what.str.startswith("ours")]["relative error"]
    assert f"off by up to {convolutions.max():.0e}".replace("e-0", "e-") in page


def test_eigenvalues(page, read):
    table = read("eigenvalues")
    table = table[table["what"] == "k = 5"].set_index(["model", "who"])["of ours"]
    times = (table[MLP, "PyHessian"], table[CNN, "PyHessian"])
    assert "{:.1f} and {:.1f} times as fast as PyHessian".format(*times) in page
    known = [table[model, "hessian-eigenthings"] for model in (MLP, CNN, RESNET)]
    assert "takes {}, {} and {} of our time".format(*known) in page
    assert f"`eigsh` takes {table[RESNET, 'curvlinops + eigsh']} of our time" in page


def test_surfaces(page, read):
    table = read("surfaces")
    large = table[table["grid"] == "51 x 51"].set_index("who")
    adaptive, exact = large.loc["ours, adaptive"], large.loc["ours"]
    (peer,) = [row for who, row in large.iterrows() if who.startswith("loss-landscapes")]
    assert f"takes {adaptive.seconds} s, loss-landscapes {peer.seconds} s" in page
    assert f"{adaptive.deviation:.0e} against {peer.deviation:.0e}" in page
    assert f"takes us {exact.seconds} s" in page


def test_training(page, read):
    epochs = read("resnet18").query("model == 'as it is'").set_index("method")["s an epoch"]
    assert f"takes {epochs['NCSAM, flip ratio 0.4']} s in bfloat16" in page
    assert f"SAM takes {epochs['SAM']} s, SGD {epochs['SGD']} s" in page
    steps = read("steps")
    measured = steps[~steps["model"].str.contains("kernels|gradients")]["gradient of g* alone"].astype(float)
    assert f"takes {measured.min():.2f} to {measured.max():.2f} of a step" in page
