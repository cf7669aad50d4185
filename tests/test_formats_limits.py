"""Raw files and masks at their limits: what is wrong is said in four parts, and large files are read lazily."""

import os
import struct
import subprocess
import sys
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


# ---- laziness ---------------------------------------------------------------------------------------------

_READ_ROWS = """
import resource, sys
from fourdstem.formats import open_raw
path = sys.argv[1]
with open_raw(path) as raw:
    peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    before = peak()
    for row in range(4):
        for x in range(0, 64, 32):
            raw.data[row, x:x + 32] if len(raw.shape) == 4 else raw.data[row * 64 + x : row * 64 + x + 32]
    print(peak() - before)
"""


@pytest.mark.parametrize("kind", ["npy", "mib", "h5", "tif", "seq", "emd"])
def test_reading_rows_of_a_large_file_takes_little_memory(tmp_path, kind):
    path = tmp_path / f"a.{kind}"
    if kind == "npy":
        with path.open("wb") as file:
            shape = (64, 64, 256, 256)
            np.lib.format.write_array_header_1_0(file, {"descr": "<u2", "fortran_order": False, "shape": shape})
            file.truncate(file.tell() + 2 * 64 * 64 * 256 * 256)
    elif kind == "mib":
        write_merlin(path, np.zeros((1, 256, 256), np.uint16))
        os.truncate(path, path.stat().st_size * 4096)
    elif kind == "tif":
        tifffile.memmap(path, shape=(4096, 256, 256), dtype="u2", photometric="minisblack", bigtiff=True)
    elif kind == "seq":
        write_seq(path, np.zeros((1, 256, 256), "<u2"), announced=4096)
        os.truncate(path, 8192 + 4096 * (path.stat().st_size - 8192))
    elif kind == "emd":  # as Velox stores a stack: the frame axis last, a chunk per frame
        with h5py.File(path, "w") as file:
            stack = file.create_dataset("Data/Image/a/Data", (256, 256, 4096), "u2", chunks=(256, 256, 1))
            for frame in range(0, 4096, 8):
                stack[:, :, frame] = 1
        os.truncate(path, 513 * 2**20)
    else:
        with h5py.File(path, "w") as file:
            file.create_dataset("counts", (64, 64, 256, 256), "u2")[-1, -1] = 1
    assert path.stat().st_size > 512 * 2**20
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1] / "scripts"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", _READ_ROWS, str(path)], capture_output=True, text=True, check=True, env=environment
    )
    assert float(done.stdout) < 40, "MB beyond what the program needs; one unit of 32 patterns is 4 MB"


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


def test_the_table_of_formats_names_every_suffix():
    table = (Path(__file__).parents[1] / "docs" / "formats.md").read_text(encoding="utf-8")
    rows = [line for line in table.splitlines() if line.startswith("| `")]
    missing = [suffix for suffix in SUFFIXES if not any(f"`{suffix}`" in row for row in rows)]
    assert missing == []
