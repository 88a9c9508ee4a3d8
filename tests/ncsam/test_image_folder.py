import numpy as np
import pytest
import torch
from PIL import Image

from ncsam import load_dataset


def write_image(path, color, size=(8, 8)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path)


def write_table(path, rows, columns="path,label"):
    path.write_text("\n".join([columns, *rows]) + "\n")


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "set"
    for name, color in (("a", (255, 0, 0)), ("b", (0, 255, 0)), ("c", (0, 0, 255))):
        write_image(root / "images" / f"{name}.png", color)
    write_table(root / "train.csv", ["images/a.png,0", "images/b.png,2"])
    write_table(root / "test.csv", ["images/c.png,1"])
    return root


def test_a_table_as_excel_saves_it_is_read(folder):
    table = folder / "train.csv"
    table.write_text(table.read_text(), encoding="utf-8-sig")
    assert load_dataset("images", folder, image_size=4).train.targets.tolist() == [0, 2]


def test_images_of_more_than_8_bits_are_refused_rather_than_cut_off(folder):
    Image.fromarray(np.full((8, 8), 9000, dtype=np.uint16)).save(folder / "images/a.png")
    with pytest.raises(ValueError, match=r"a\.png: .* more than 8 bits"):
        load_dataset("images", folder, image_size=4)


def test_images_are_read_in_the_order_of_their_tables(folder):
    dataset = load_dataset("images", folder, image_size=4)
    assert dataset.input_shape == (3, 4, 4)
    assert dataset.train.targets.tolist() == [0, 2]
    assert dataset.test.targets.tolist() == [1]
    assert dataset.num_classes == 3
    assert dataset.observed is None
    red, green = dataset.train.pixels
    assert (red == torch.tensor([255, 0, 0]).view(3, 1, 1)).all()
    assert (green == torch.tensor([0, 255, 0]).view(3, 1, 1)).all()


def test_images_of_any_size_and_mode_are_resized_to_squares_of_color(folder):
    gradient = np.tile(np.linspace(0, 255, 64).astype(np.uint8), (32, 1))
    Image.fromarray(gradient).save(folder / "images" / "a.png")
    pixels = load_dataset("images", folder, image_size=16).train.pixels[0]
    assert torch.equal(pixels[0], pixels[1])
    # each of the 16 columns is about the mean of 4
    truth = torch.from_numpy(gradient[0].astype(np.float64)).view(16, 4).mean(1)
    torch.testing.assert_close(pixels[0].double(), truth.expand(16, 16), rtol=0, atol=3)


def test_jpegs_are_read(folder):
    Image.new("RGB", (300, 200), (200, 100, 50)).save(folder / "images" / "a.jpg")
    write_table(folder / "train.csv", ["images/a.jpg,0"])
    pixels = load_dataset("images", folder, image_size=16).train.pixels[0]
    # what JPEG loses on one color
    truth = torch.tensor([200.0, 100.0, 50.0]).view(3, 1, 1).expand(3, 16, 16)
    torch.testing.assert_close(pixels.float(), truth, rtol=0, atol=3)


def test_true_labels_are_the_targets_where_the_table_has_them(folder):
    write_table(folder / "train.csv", ["images/a.png,3,0", "images/b.png,2,2"], "path,label,clean")
    dataset = load_dataset("images", folder)
    assert dataset.train.targets.tolist() == [0, 2]
    assert dataset.observed.tolist() == [3, 2]
    assert dataset.num_classes == 4


def test_a_class_that_no_image_has_is_refused_with_the_table(folder):
    write_table(folder / "train.csv", ["images/a.png,0", "images/b.png,255"])
    with pytest.raises(
        ValueError, match=r"'label of train\.csv' has the label 255 at sample 1, .* of class 2, 3"
    ):
        load_dataset("images", folder, image_size=4)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["../outside.png,0"], r"row 1: '\.\./outside\.png' leads out of the folder"),
        (["/etc/passwd,0"], "'/etc/passwd' leads out of the folder"),
        (["images/../../outside.png,0"], "leads out of the folder"),
        (["link.png,0"], "leads out of the folder"),
        (["images/a.png,cat"], "row 1: label must be a whole number from 0, got 'cat'"),
        (["images/a.png,0", "images/b.png,-1"], "row 2: label must be a whole number"),
        (["images/a.png,9999999999999"], "row 1: label must be a whole number"),
        (["images/a.png"], "row 1: label must be a whole number"),
        ([], "at least one row"),
        (["broken.png,0"], "broken.png: is not an image"),
    ],
)
def test_a_table_that_does_not_fit_is_named_with_its_row(folder, rows, message):
    write_image(folder.parent / "outside.png", (0, 0, 0))
    (folder / "link.png").symlink_to(folder.parent / "outside.png")
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n")
    write_table(folder / "train.csv", rows)
    with pytest.raises(ValueError, match=message):
        load_dataset("images", folder)


def test_missing_tables_columns_and_images_are_named(folder):
    write_table(folder / "train.csv", ["images/z.png,0"])
    with pytest.raises(FileNotFoundError, match="row 1: .*z.png is missing"):
        load_dataset("images", folder)
    write_table(folder / "train.csv", ["images/a.png,0"], "file,label")
    with pytest.raises(ValueError, match="columns 'path' and 'label'"):
        load_dataset("images", folder)
    (folder / "train.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="is not a CSV file"):
        load_dataset("images", folder)
    (folder / "train.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"train\.csv is missing"):
        load_dataset("images", folder)


@pytest.mark.parametrize("size", [0, -4, 10**9])
def test_sizes_are_checked_before_memory_is_asked_for(folder, size):
    with pytest.raises(ValueError, match="^image_size: "):
        load_dataset("images", folder, image_size=size)


def test_only_image_folders_are_resized():
    with pytest.raises(ValueError, match="^image_size: only 'images'"):
        load_dataset("digits", image_size=4)
