"""What an HDF5 file may claim is bounded as a whole, and looked at before any of it is read."""

import h5py
import numpy as np
import pytest
from h5py import h5d, h5p, h5s, h5t

from landscape.results.trust import UntrustedError, check_path, check_trusted


def packed_several_times(file):
    plist = h5p.create(h5p.DATASET_CREATE)
    plist.set_chunk((1000,))
    plist.set_deflate(9)
    plist.set_deflate(9)
    h5d.create(file.id, b"packed", h5t.NATIVE_INT64, h5s.create_simple((1000,)), plist)


def a_chunk_larger_than_its_data(file):
    plist = h5p.create(h5p.DATASET_CREATE)
    plist.set_chunk((1 << 28,))
    h5d.create(file.id, b"chunk", h5t.NATIVE_INT64, h5s.create_simple((1,), (h5s.UNLIMITED,)), plist)


CLAIMS = {
    "words that fill gaps": lambda file: file.create_dataset(
        "words", (100_000,), h5py.string_dtype(), fillvalue="x" * 100_000
    ),
    "numbers that fill gaps": lambda file: file.create_dataset("numbers", (4,), "f8", fillvalue=1.0),
    "2,000 empty data sets of 64 MiB": lambda file: [
        file.create_dataset(f"empty{number}", (1 << 23,), "f8") for number in range(2000)
    ],
    "text of 8 GB": lambda file: file.create_dataset("layer", (4,), "S2000000000"),
    "an empty data set of 10 TB": lambda file: file.create_dataset("empty", (10**13,), "u1", chunks=(1024,)),
    "packed several times": packed_several_times,
    "a chunk larger than its data": a_chunk_larger_than_its_data,
    "more words than there may be": lambda file: file.create_dataset(
        "words", (300_000,), h5py.string_dtype()
    ),
    "words in several dimensions": lambda file: file.create_dataset("words", (2, 2), h5py.string_dtype()),
    "an attribute of many words": lambda file: file.attrs.__setitem__("words", ["a", "b"]),
    "a link to another file": lambda file: file.__setitem__("link", h5py.ExternalLink("other.h5", "/")),
    "a link within the file": lambda file: file.__setitem__("link", h5py.SoftLink("/nowhere")),
    "a circle": lambda file: file.create_group("group").__setitem__("circle", file["/"]),
    "another filter": lambda file: file.create_dataset("packed", data=np.arange(99), compression="lzf"),
    "references": lambda file: file.create_dataset("references", (2,), h5py.ref_dtype),
    "a stored type": lambda file: file.__setitem__("type", np.dtype("f8")),
}


@pytest.mark.parametrize("claim", CLAIMS)
def test_a_file_that_claims_more_than_it_holds_or_leads_elsewhere_is_refused(tmp_path, claim):
    with h5py.File(tmp_path / "hostile.h5", "w") as file:
        CLAIMS[claim](file)
    assert (tmp_path / "hostile.h5").stat().st_size < 4 << 20
    with h5py.File(tmp_path / "hostile.h5") as file, pytest.raises(UntrustedError):
        check_trusted(file)


def test_what_is_honest_is_trusted_zeros_of_millions_of_samples_among_it(tmp_path):
    with h5py.File(tmp_path / "honest.h5", "w") as file:
        file.create_dataset(
            "labels", data=np.zeros(5_000_000, dtype=np.int64), compression="gzip", shuffle=True
        )
        file.create_dataset("words", data=["a", "b"], dtype=h5py.string_dtype())
        file["group/number"] = 1.5
        file["group"].attrs["word"] = "a word"
        file["group/number"].attrs["flag"] = True
    with h5py.File(tmp_path / "honest.h5") as file:
        check_trusted(file)


def check_changed_words(path, words, change):
    """Checks a file of words after `change(content, offset)`; the offset is that of the words' references."""
    with h5py.File(path, "w") as file:
        file.create_dataset("words", data=words, dtype=h5py.string_dtype())
        offset = file["words"].id.get_offset()
    content = bytearray(path.read_bytes())
    change(content, offset)
    path.write_bytes(content)
    with h5py.File(path) as file:
        check_trusted(file)


def test_words_that_share_their_bytes_count_each_time(tmp_path):
    def repeat_the_first(content, offset):
        # a reference: the length, the place of the heap, the number in the heap
        content[offset : offset + 16_000] = content[offset : offset + 16] * 1000

    with pytest.raises(UntrustedError, match="together claim more bytes"):
        check_changed_words(tmp_path / "words.h5", ["x" * 1_000_000, *[""] * 999], repeat_the_first)


def test_names_that_will_not_be_read_are_not_looked_at(tmp_path):
    with h5py.File(tmp_path / "index.h5", "w") as file:
        file["links/run"] = h5py.ExternalLink("run.h5", "/")
        check_trusted(file, besides=("links",))
        with pytest.raises(UntrustedError):
            check_trusted(file)


@pytest.mark.parametrize("link", [h5py.ExternalLink("other.h5", "/"), h5py.SoftLink("/group")])
def test_a_path_through_a_link_is_refused(tmp_path, link):
    with h5py.File(tmp_path / "file.h5", "w") as file:
        file.create_group("group/inner")
        file["link"] = link
        check_path(file, "group/inner")
        with pytest.raises(UntrustedError, match="'link' is a link to elsewhere"):
            check_path(file, "link/inner")


@pytest.mark.parametrize("size", [0, 2**63, 2**64 - 32, 1 << 20])
def test_a_collection_of_words_in_which_hdf5_would_lose_its_way_is_refused(tmp_path, size):
    def change_the_size_of_free_space(content, _):
        # two words of a letter, each with a head and padding, then free space: number 0, and its size
        free = content.index(b"GCOL") + 16 + 2 * 24
        assert content[free : free + 8] == bytes(8)
        content[free + 8 : free + 16] = size.to_bytes(8, "little")

    with pytest.raises(UntrustedError, match="collections of words is broken"):
        check_changed_words(tmp_path / "words.h5", ["a", "b"], change_the_size_of_free_space)


def test_bytes_that_look_like_a_collection_of_words_are_numbers(tmp_path):
    with h5py.File(tmp_path / "numbers.h5", "w") as file:
        file["numbers"] = np.frombuffer(b"GCOL\x01\0\0\0" * 1000, dtype="u1")
    with h5py.File(tmp_path / "numbers.h5") as file:
        check_trusted(file)
