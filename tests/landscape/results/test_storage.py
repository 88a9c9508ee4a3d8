import dataclasses
import multiprocessing
import os
from concurrent.futures import ThreadPoolExecutor

import h5py
import numpy as np
import pytest
import torch
import xarray
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from landscape import (
    Objective,
    Surface,
    average_sharpness,
    filter_normalized_directions,
    layer_traces,
    line,
    load,
    low_loss_bend,
    matched,
    pac_bayes_sigma,
    path,
    relative_flatness,
    save,
    sharpness,
    sharpness_profile,
    spectral_density,
    surface,
    top_eigenvalues,
    trace,
    trajectory_directions,
)
from tests.conftest import build
from tests.drawn import drawn


@pytest.fixture
def objective():
    model, inputs, targets = build("mlp")
    return Objective(model.float(), nn.CrossEntropyLoss(), (inputs.float(), targets))


def all_results(objective):
    directions = filter_normalized_directions(objective, 2)
    return {
        "directions": directions,
        "line": line(objective, directions, steps=3),
        "surface": surface(objective, directions, steps=3),
        "line of some": line(objective, directions, steps=3, samples=20),
        "surface of some": surface(objective, directions, steps=3, samples=20),
        "refined surface": surface(objective, directions, steps=12, adaptive=True),
        "trajectory": trajectory_directions(objective, [objective.theta * s for s in (0.5, 1, 2)], 1)[1],
        "sharpness": sharpness(objective, steps=1),
        "average": average_sharpness(objective, max_draws=8),
        "tolerance": pac_bayes_sigma(objective, max_draws=8),
        "flatness": relative_flatness(objective, max_products=12),
        "profile": sharpness_profile(objective, steps=1, max_draws=8, max_products=12),
        "path": path(objective, objective.theta + 1, steps=3),
        "bend": low_loss_bend(objective, objective.theta + 1, steps=2, batch_size=5),
        "matching": matched(objective.model, objective.model)[1],
        "eigen": top_eigenvalues(objective, 2),
        "trace": trace(objective, max_products=10),
        "layers": layer_traces(objective, max_products=4),
        "density": spectral_density(objective, steps=5, probes=2),
    }


def test_every_result_comes_back_as_it_was(objective, tmp_path):
    path = tmp_path / "results.h5"
    results = all_results(objective)
    for name, result in results.items():
        save(path, f"group/{name}", result)
    for name, result in results.items():
        loaded = load(path, f"group/{name}")
        assert type(loaded) is type(result)
        for field in dataclasses.fields(result):
            before, after = getattr(result, field.name), getattr(loaded, field.name)
            assert type(before) is type(after), field.name
            if isinstance(before, torch.Tensor):
                assert before.dtype == after.dtype
                assert torch.equal(before, after)
            else:
                np.testing.assert_array_equal(before, after)


def test_a_surface_from_before_there_were_standard_errors_is_read(objective, tmp_path):
    path = tmp_path / "results.h5"
    result = surface(objective, filter_normalized_directions(objective, 2), steps=3)
    save(path, "plane", result)
    with h5py.File(path, "a") as file:
        for name in ("population", "angle", "batch_norm", "calibration_samples", "evaluations"):
            del file[f"plane/{name}"]
        del file["plane/direction_kind"], file["plane/one_dimensional"]
    old = load(path, "plane")
    np.testing.assert_array_equal(old.loss, result.loss)
    assert (old.batch_norm, old.loss_error, old.evaluated) == ("eval", None, None)


def test_directions_in_bfloat16_come_back_with_the_same_numbers(tmp_path):
    model, inputs, targets = build("mlp")
    objective = Objective(model, nn.CrossEntropyLoss(), (inputs, targets), dtype=torch.bfloat16)
    directions = filter_normalized_directions(objective, 2)
    save(tmp_path / "results.h5", "directions", directions)
    stored = load(tmp_path / "results.h5", "directions").vectors
    assert stored.dtype == torch.float32
    assert torch.equal(stored.bfloat16(), directions.vectors)


def test_saving_again_replaces(objective, tmp_path):
    path = tmp_path / "results.h5"
    save(path, "a", sharpness(objective, rho=0.1, steps=1))
    save(path, "a", sharpness(objective, rho=0.2, steps=1))
    assert load(path, "a").rho == 0.2


def test_results_below_one_that_is_saved_again_are_kept(objective, tmp_path):
    path = tmp_path / "results.h5"
    save(path, "a", sharpness(objective, rho=0.1, steps=1))
    save(path, "a/finer", sharpness(objective, rho=0.2, steps=1))
    save(path, "a", sharpness(objective, rho=0.3, steps=1))
    assert (load(path, "a").rho, load(path, "a/finer").rho) == (0.3, 0.2)


def test_what_two_threads_save_to_one_file_is_all_kept(objective, tmp_path):
    """h5py#1035, h5py#1804: each wrote a copy of the file as it was before the other."""
    path, result = tmp_path / "results.h5", sharpness(objective, rho=0.1, steps=1)

    def work(name):
        for i in range(8):
            save(path, f"{name}/{i}", result)

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(work, "abc"))
    with h5py.File(path) as file:
        assert {name: len(file[name]) for name in file} == {"a": 8, "b": 8, "c": 8}


def save_ten(path, name, result):
    for i in range(10):
        save(path, f"{name}/{i}", result)


def test_what_two_processes_save_to_one_file_is_all_kept(objective, tmp_path):
    path, result = tmp_path / "results.h5", sharpness(objective, rho=0.1, steps=1)
    # not spawned: the packages would be imported anew
    forked = multiprocessing.get_context("fork")
    writers = [forked.Process(target=save_ten, args=(path, name, result)) for name in "ab"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0]
    with h5py.File(path) as file:
        assert {name: len(file[name]) for name in file} == {"a": 10, "b": 10}


def test_a_file_that_is_open_for_writing_is_refused(objective, tmp_path):
    """h5py#1864: what was saved by path was lost, or what the open file held."""
    path, result = tmp_path / "results.h5", sharpness(objective, rho=0.1, steps=1)
    save(path, "first", result)
    with h5py.File(path, "a") as file:
        file["mine"] = np.arange(5)
        with pytest.raises(ValueError, match="is open for writing elsewhere"):
            save(path, "second", result)
        save(file, "second", result)
    with h5py.File(path) as file:
        assert set(file) == {"first", "mine", "second"}
        save(path, "third", result)
    assert load(path, "third").rho == 0.1


def test_xarray_writes_what_it_has_read(objective, tmp_path):
    path = tmp_path / "results.h5"
    save(path, "sharpness", sharpness(objective, rho=0.1, steps=1))
    with xarray.open_dataset(path, group="sharpness", engine="h5netcdf") as dataset:
        dataset.to_netcdf(tmp_path / "copy.nc", engine="h5netcdf")
    with xarray.open_dataset(tmp_path / "copy.nc", engine="h5netcdf") as dataset:
        assert dataset.rho == 0.1


def test_xarray_reads_a_surface_with_its_coordinates_units_and_descriptions(objective, tmp_path):
    path = tmp_path / "results.h5"
    result = surface(objective, filter_normalized_directions(objective, 2), steps=5, extent=0.5)
    save(path, "surface/random", result)
    with xarray.open_dataset(path, group="surface/random", engine="h5netcdf") as dataset:
        assert dataset.loss.dims == ("alpha", "beta")
        np.testing.assert_array_equal(dataset.alpha, result.alpha)
        at_center = dataset.loss.sel(alpha=0.0, beta=0.0)
        assert float(at_center) == result.center_loss
        assert dataset.loss.attrs["units"] == "nat"
        assert dataset.loss.attrs["description"] == "mean loss"


def test_every_array_has_named_dimensions_and_every_field_a_description(objective, tmp_path):
    path = tmp_path / "results.h5"
    for name, result in all_results(objective).items():
        save(path, name, result)
    with h5py.File(path) as file:

        def check(_, item):
            if isinstance(item, h5py.Dataset):
                assert item.attrs["description"]
                if not item.is_scale:
                    assert all(dimension.keys() for dimension in item.dims)

        file.visititems(check)


def test_not_a_result_is_refused(tmp_path):
    with pytest.raises(TypeError, match="^result"):
        save(tmp_path / "x.h5", "a", {"loss": 1})
    with pytest.raises(FileNotFoundError, match="^file"):
        load(tmp_path / "missing.h5", "a")
    with h5py.File(tmp_path / "x.h5", "a") as file:
        file.create_group("other")
    with pytest.raises(ValueError, match="^name"):
        load(tmp_path / "x.h5", "other")


def test_xarray_reads_a_spectral_density_with_its_band_and_traces_with_their_layers(objective, tmp_path):
    path = tmp_path / "results.h5"
    results = all_results(objective)
    for name in ("density", "layers"):
        save(path, name, results[name])
    with xarray.open_dataset(path, group="density", engine="h5netcdf") as density:
        assert density.density.dims == density.density_error.dims == ("eigenvalue",)
        np.testing.assert_array_equal(density.eigenvalue, results["density"].eigenvalue)
    with xarray.open_dataset(path, group="layers", engine="h5netcdf") as layers:
        assert list(layers.layer.values) == ["1.weight", "1.bias", "3.weight", "3.bias"]
        assert layers["values"].sel(layer="3.bias") == results["layers"].values[3]


def plane():
    axis = np.linspace(-1, 1, 3)
    return Surface(axis, axis, np.zeros((3, 3)), np.zeros((3, 3)), 0.0, 0.5, np.ones(2), 0.0, 10)


def test_what_cannot_be_saved_leaves_what_was_there(tmp_path):
    path = tmp_path / "results.h5"
    save(path, "a", plane())
    with pytest.raises(ValueError, match="^dims: loss has 1 dimensions"):
        save(path, "a", dataclasses.replace(plane(), loss=np.zeros(3)))
    with pytest.raises(ValueError, match="^dims: loss has 4 along beta, which has 3"):
        save(path, "new", dataclasses.replace(plane(), loss=np.zeros((3, 4))))
    with h5py.File(path, "r+") as file, pytest.raises(ValueError, match="^dims: "):
        save(file, "a", dataclasses.replace(plane(), loss=np.zeros(3)))
    with h5py.File(path) as file:
        assert list(file) == ["a"]
    assert load(path, "a").loss.shape == (3, 3)


def test_a_writer_that_stops_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "results.h5"
    save(path, "a", plane())
    before = path.read_bytes()

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", stop)
    with pytest.raises(KeyboardInterrupt):
        save(path, "b", plane())
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_group_of_several_results_is_not_replaced_by_one(tmp_path):
    path = tmp_path / "results.h5"
    save(path, "observed/plane", plane())
    with pytest.raises(ValueError, match="^name: 'observed' holds no result"):
        save(path, "observed", plane())
    assert load(path, "observed/plane").samples == 10


def replace(group, name, **options):
    del group[name]
    group.create_dataset(name, **options).attrs["tensor"] = False


def link(group, to):
    del group["loss"]
    group["loss"] = to


HUGE = {"shape": (1 << 20, 1 << 20), "chunks": (1024, 1024), "dtype": "f8"}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda g: link(g, h5py.ExternalLink("other.h5", "loss")), "is a link to elsewhere"),
        (lambda g: link(g, h5py.SoftLink("/nowhere")), "is a link to elsewhere"),
        (lambda g: link(g, np.zeros((3, 3))), "is no data set of a result"),
        (lambda g: replace(g, "loss", **HUGE), "claim more bytes than a file of its size holds"),
        (lambda g: replace(g, "loss", data=np.zeros(3)), "has 1 dimensions, not 2"),
        (
            lambda g: replace(g, "loss", data=np.full((3, 3), "x", dtype=object)),
            "its words have several dimensions",
        ),
        (lambda g: replace(g, "loss", data=np.zeros((3, 3), "V5")), "its type is neither a number nor text"),
        (lambda g: replace(g, "loss", data=np.zeros((3, 4))), "along beta, other fields have 3"),
        (lambda g: replace(g, "alpha", data=np.zeros(4)), "along alpha"),
        (lambda g: replace(g, "batch_norm", data=1.0), "holds float64"),
        (
            lambda g: replace(g, "loss", shape=(3, 3), dtype="f8", external=[("/etc/hostname", 0, 72)]),
            "its data are in another file",
        ),
        (lambda g: g.pop("loss"), "lacks 'loss'"),
    ],
)
def test_what_save_does_not_write_is_not_read(change, says, tmp_path):
    path = tmp_path / "results.h5"
    save(path, "plane", plane())
    with h5py.File(path, "r+") as file:
        change(file["plane"])
    with pytest.raises(ValueError, match="^name: ") as caught:
        load(path, "plane")
    assert says in str(caught.value)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The bytes of a file with a result."""
    path = tmp_path_factory.mktemp("whole") / "results.h5"
    save(path, "plane", plane())
    return path.read_bytes()


@drawn(100)
@given(st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=5))
def test_bytes_changed_anywhere_give_a_result_or_an_error_that_names_the_file(whole, tmp_path, edits):
    content = bytearray(whole)
    for share, value in edits:
        # most faults are found in the first half, where HDF5 keeps what lies where
        content[int(share**2 * len(content))] = value
    path = tmp_path / "results.h5"
    path.write_bytes(content)
    try:
        found = load(path, "plane")
    except (ValueError, KeyError) as error:
        message = str(error.args[0])
        assert message.startswith(("name: ", "file: "))
        assert str(path) in message
        assert "\n" not in message
    else:
        assert isinstance(found, Surface)


@pytest.mark.parametrize("suffix", [".npz", ".npy", ".pt"])
def test_a_file_named_like_another_format_is_not_written(tmp_path, suffix):
    with pytest.raises(ValueError, match=rf"^file: found\{suffix} would hold HDF5; name it found.h5"):
        save(tmp_path / f"found{suffix}", "a", plane())
    assert not any(tmp_path.iterdir())


def test_what_is_not_hdf5_is_named_and_kept(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("notes")
    for use in (lambda: load(path, "a"), lambda: save(path, "a", plane())):
        with pytest.raises(ValueError, match=r"^file: .*notes.txt is not a whole HDF5 file"):
            use()
    assert path.read_text() == "notes"
    with pytest.raises(FileNotFoundError, match="^file: the folder of"):
        save(tmp_path / "none/x.h5", "a", plane())


def test_a_name_that_is_not_there_is_answered_with_those_that_are(tmp_path):
    file = tmp_path / "results.h5"
    with h5py.File(file, "w"):
        pass
    with pytest.raises(KeyError, match="it holds no result"):
        load(file, "test/plane")
    save(file, "test/plane", plane())
    save(file, "train/plane", plane())
    with pytest.raises(KeyError, match="no 'plane' in .*; there is 'test/plane', 'train/plane'"):
        load(file, "plane")


@pytest.mark.parametrize(
    ("name", "kind"),
    [("a/./c", ValueError), ("a\0b", ValueError), ("", ValueError), (7, TypeError), (None, TypeError)],
)
def test_names_under_which_nothing_would_be_found_are_refused(name, kind, objective, tmp_path):
    with pytest.raises(kind, match="^name: "):
        save(tmp_path / "results.h5", name, trace(objective, max_products=10))
