"""Raw files and masks at their limits: what is wrong is said in four parts; what the table of formats says is so."""

import re
import struct
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
from raw_files import COUNTS, refuses, vendor_folder, write_merlin, write_seq

from fourdstem.errors import InputError
from fourdstem.formats import SUFFIXES, open_raw, read_mask

vendor_files = pytest.fixture(scope="module")(vendor_folder)


# ---- what is wrong with a file ----------------------------------------------------------------------------


def test_a_missing_file_a_folder_and_an_empty_file_are_told_apart(tmp_path):
    (tmp_path / "empty.mib").touch()
    refuses(tmp_path / "gone.mib", "no such file", "file:")
    refuses(tmp_path, "a folder")
    refuses(tmp_path / "empty.mib", "an empty file")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("a.npz", (".npy", "npz")),
        ("a.hdr", (".mib",)),
        ("a.xyz", (".xyz", ".hspy")),
        ("a", ("no suffix",)),
        ("a.h5", ("HDF5",)),
        ("a.npy", ("cannot be mapped",)),
        ("a.mib", ("no Merlin header",)),
        ("a.dm4", ("DigitalMicrograph",)),
        ("a.tvips", ("TVIPS",)),
        ("a.xml", ("EMPAD",)),
    ],
)
def test_a_file_that_is_not_what_its_name_says_is_refused(tmp_path, name, words):
    (tmp_path / name).write_bytes(b"this is not a scan" * 100)
    refuses(tmp_path / name, *words)


def test_dataset_is_refused_where_there_are_none(tmp_path):
    np.save(tmp_path / "a.npy", COUNTS)
    refuses(tmp_path / "a.npy", "dataset: x", "not HDF5", dataset="x")


@pytest.mark.parametrize("data", [COUNTS[0, 0], COUNTS[None], COUNTS.astype(complex), np.array(["a", "b"])])
def test_arrays_of_other_axes_or_types_are_refused(tmp_path, data):
    np.save(tmp_path / "a.npy", data)
    refuses(tmp_path / "a.npy", str(data.shape), "4 axes")


@pytest.mark.parametrize("shape", [(3, 5, 8, 1), (3, 5, 1, 6), (15, 1, 1)])
def test_a_detector_of_one_pixel_across_is_refused_when_it_is_opened(tmp_path, shape):
    np.save(tmp_path / "a.npy", np.ones(shape, np.uint16))
    refuses(tmp_path / "a.npy", str(shape), "1 px wide", "in this order")


def test_truncated_files_are_refused_when_they_are_opened(vendor_files, tmp_path):
    np.save(tmp_path / "a.npy", COUNTS)
    header = bytearray(1024)
    struct.pack_into("<4i", header, 0, 6, 8, 15, 6)
    header[208:214] = b"MAP DD"
    (tmp_path / "a.mrc").write_bytes(bytes(header) + COUNTS.tobytes())
    (tmp_path / "a.blo").write_bytes((vendor_files / "blockfile" / "test1.blo").read_bytes())
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["counts"] = np.zeros((4, 4, 64, 64))
    for name in ("a.npy", "a.mrc", "a.blo", "a.h5"):
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content[: int(len(content) * 0.8)])
        refuses(tmp_path / name, "truncated" if name != "a.npy" else "complete .npy")


def test_a_frame_damaged_in_the_middle_is_named_when_it_is_read(tmp_path):
    frames = COUNTS.reshape(15, 8, 6)
    tifffile.imwrite(tmp_path / "a.tif", frames, photometric="minisblack", compression="zlib")
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        place = file.pages[7].dataoffsets[0] + 20
    content = bytearray((tmp_path / "a.tif").read_bytes())
    content[place] ^= 0xFF
    (tmp_path / "a.tif").write_bytes(content)
    with open_raw(tmp_path / "a.tif") as raw:
        np.testing.assert_array_equal(raw.data[0:7], frames[:7])
        with pytest.raises(InputError, match="that cannot be read") as caught:
            raw.data[5:9]
        assert caught.value.where == str(tmp_path / "a.tif")


def test_flipped_bits_never_end_in_anything_but_a_message(tmp_path):
    frames = COUNTS.reshape(15, 8, 6)
    tifffile.imwrite(tmp_path / "a.tif", frames, photometric="minisblack", compression="zlib")
    write_seq(tmp_path / "a.seq", frames)
    np.save(tmp_path / "a.npy", frames)
    write_merlin(tmp_path / "a.mib", frames)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("entry/data/data", data=frames, chunks=(1, 8, 6), compression="gzip")
    rng = np.random.default_rng(4)
    refused = 0
    for name in ("a.tif", "a.seq", "a.npy", "a.mib", "a.h5"):
        whole = (tmp_path / name).read_bytes()
        for _ in range(40):
            damaged = bytearray(whole)
            for place in rng.integers(min(len(whole), 3000), size=3):
                damaged[place] ^= 1 << int(rng.integers(8))
            (tmp_path / name).write_bytes(damaged)
            try:
                with open_raw(tmp_path / name) as raw:
                    raw.data[0:2]
            except InputError:
                refused += 1
    assert refused > 20


# ---- mask -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["m.png", "m.tif", "m.npy"])
def test_a_mask_reads_back(tmp_path, name):
    import imageio.v3 as imageio

    mask = (np.random.default_rng(2).random((8, 6)) > 0.3).astype(np.uint8)
    np.save(tmp_path / name, mask * 255) if name.endswith("npy") else imageio.imwrite(tmp_path / name, mask * 255)
    np.testing.assert_array_equal(read_mask(tmp_path / name, (8, 6)), mask)


def test_the_alpha_channel_of_a_mask_does_not_count(tmp_path):
    import imageio.v3 as imageio

    mask = np.zeros((8, 6, 4), np.uint8)
    mask[..., 3] = 255
    mask[2:, :, 1] = 9
    imageio.imwrite(tmp_path / "m.png", mask)
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png", (8, 6))[:, 0], [0, 0, 1, 1, 1, 1, 1, 1])


@pytest.mark.parametrize(
    ("content", "word"), [(np.ones((6, 8)), "shape (6, 8)"), (np.zeros((8, 6)), "0 everywhere"), (None, "no such file")]
)
def test_a_mask_that_cannot_be_used_is_refused(tmp_path, content, word):
    if content is not None:
        np.save(tmp_path / "m.npy", content)
    with pytest.raises(InputError) as caught:
        read_mask(tmp_path / "m.npy", (8, 6))
    assert word in caught.value.found
    assert caught.value.where.endswith("m.npy") and "8 by 6" in caught.value.expected and caught.value.do


def test_an_unreadable_mask_is_refused(tmp_path):
    (tmp_path / "m.png").write_bytes(b"no image")
    with pytest.raises(InputError, match="no readable image"):
        read_mask(tmp_path / "m.png", (8, 6))


# ---- the table of formats ---------------------------------------------------------------------------------


def rows_of_formats():
    """Cells of the table in docs/formats.md, without its head."""
    lines = (Path(__file__).parents[1] / "docs" / "formats.md").read_text(encoding="utf-8").splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines if line.startswith("| `")]
    assert all(len(row) == 6 for row in rows)
    return rows


def test_the_table_of_formats_has_the_suffixes_that_are_read_and_no_others():
    named = {suffix for row in rows_of_formats() for suffix in re.findall(r"`(?:\*_master)?(\.\w+)`", row[0])}
    assert named - {".hdr", ".raw"} == set(SUFFIXES)  # those two belong to .mib and .xml


def test_every_row_of_the_table_says_how_it_was_tested():
    kinds = {row[5].split(":")[0] for row in rows_of_formats()}
    assert kinds == {"real file", "written and read back"}


REAL = {  # row of the table -> a file that the vendor's program wrote, and its shape
    "`.h5`, `.hdf5` plain": ("../cryo_counts/virus_crop24x24_det256_raw.h5", (24, 24, 256, 256)),
    "`.h5`, `.emd` py4DSTEM, EMD 1.0": ("emd/py4DSTEM_size2x3x4x5.h5", (2, 3, 4, 5)),
    "`*_master.h5` ARINA, EIGER": ("arina/test_00_master.h5", (16, 192, 192)),
    "`.mib` with `.hdr`": ("quantumdetector/Merlin_navigation4x2_ROI.zip", (8, 256, 256)),
    "`.blo`": ("blockfile/test1.blo", (3, 2, 144, 144)),
}


def test_the_rows_that_say_real_file_are_those_with_one():
    assert {row[0] for row in rows_of_formats() if row[5].startswith("real file")} == set(REAL)


@pytest.mark.parametrize("row", REAL)
def test_the_real_file_of_a_row_is_read(vendor_files, tmp_path, row):
    name, shape = REAL[row]
    path = vendor_files / name
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            archive.extractall(tmp_path)
        path = tmp_path / "001_4x2_6bit.mib"
    with open_raw(path) as raw:
        assert raw.shape == shape
        assert np.isfinite(raw.data[0]).all()
