import pytest
import scipy.stats
import torch

from ncsam.augmentation import Augmentation, cutout, random_crop, random_flip


def images(n=40, shape=(3, 6, 9), dtype=torch.uint8):
    generator = torch.Generator().manual_seed(0)
    # from 1, so that 0 is the padding's alone
    return torch.randint(1, 256, (n, *shape), generator=generator).to(dtype)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64])
@pytest.mark.parametrize("padding", [0, 1, 4])
def test_a_crop_is_a_window_of_the_padded_image(padding, dtype, layout):
    pixels = images(dtype=dtype).contiguous(memory_format=layout)
    cropped = random_crop(pixels, padding, seeded())
    assert cropped.dtype == dtype
    generator = seeded()
    tops, lefts = (torch.randint(2 * padding + 1, (40,), generator=generator) for _ in range(2))
    for image, top, left, found in zip(pixels, tops, lefts, cropped, strict=True):
        padded = torch.zeros(3, 6 + 2 * padding, 9 + 2 * padding, dtype=dtype)
        padded[:, padding : padding + 6, padding : padding + 9] = image
        assert torch.equal(found, padded[:, top : top + 6, left : left + 9])


def test_every_crop_is_equally_likely():
    pixels = torch.zeros(20_000, 1, 5, 5)
    pixels[:, 0, 2, 2] = 1
    cropped = random_crop(pixels, 2, seeded())
    assert (cropped.flatten(1).sum(1) == 1).all()
    counts = cropped.sum(0).flatten().tolist()
    assert scipy.stats.chisquare(counts).pvalue > 1e-3


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_a_flip_mirrors_half_of_the_images(dtype):
    pixels = images(2000, (2, 3, 4), dtype)
    flipped = random_flip(pixels, seeded())
    mirrored = [torch.equal(found, image.flip(2)) for image, found in zip(pixels, flipped, strict=True)]
    kept = [torch.equal(found, image) for image, found in zip(pixels, flipped, strict=True)]
    assert all(a != b for a, b in zip(mirrored, kept, strict=True))
    assert scipy.stats.binomtest(sum(mirrored), 2000).pvalue > 1e-3


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_cutout_blackens_a_square_that_ends_at_the_border(size, dtype):
    pixels = images(dtype=dtype)
    holed = cutout(pixels, size, seeded())
    generator = seeded()
    rows = torch.randint(6, (40,), generator=generator)
    columns = torch.randint(9, (40,), generator=generator)
    for image, row, column, found in zip(pixels, rows, columns, holed, strict=True):
        truth = image.clone()
        top, left = int(row) - size // 2, int(column) - size // 2
        truth[:, max(top, 0) : top + size, max(left, 0) : left + size] = 0
        assert torch.equal(found, truth)


def test_every_center_of_a_hole_is_equally_likely():
    holed = cutout(torch.ones(20_000, 1, 4, 6), 1, seeded())
    counts = (1 - holed).sum(0).flatten().tolist()
    assert sum(counts) == 20_000
    assert scipy.stats.chisquare(counts).pvalue > 1e-3


def test_an_augmentation_crops_flips_and_cuts_in_that_order():
    pixels = images()
    generator = seeded()
    truth = cutout(random_flip(random_crop(pixels, 2, generator), generator), 3, generator)
    assert torch.equal(Augmentation(crop=2, flip=True, cutout=3)(pixels, seeded()), truth)
    assert Augmentation()(pixels, seeded()) is pixels


def test_the_generator_alone_decides_and_the_images_stay_as_they_were():
    pixels = images()
    before, global_state = pixels.clone(), torch.get_rng_state()
    augment = Augmentation(crop=2, flip=True, cutout=3)
    first, again, other = (augment(pixels, seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(pixels, before)
    assert torch.equal(torch.get_rng_state(), global_state)


@pytest.mark.parametrize("field", ["crop", "cutout"])
def test_negative_sizes_are_refused(field):
    with pytest.raises(ValueError, match=f"^{field}: .* got -1"):
        Augmentation(**{field: -1})
