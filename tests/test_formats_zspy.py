"""HyperSpy's .zspy: stores like those that RosettaSciIO writes with zarr 2, read without zarr."""

import bz2
import gzip
import lzma
import zlib

import numpy as np
import pytest
from raw_files import COUNTS, SHAPE, blosc, refuses, write_zspy

from fourdstem.errors import InputError
from fourdstem.formats import open_raw

CHUNKS = (2, 3, 8, 4)
WHERE = [2, slice(1, 3), (1, slice(2, 5)), (-1, 3), (slice(0, 3, 2), 4), (0, 1, slice(2, 7, 3), 3), (2, slice(5, 5))]


@pytest.mark.parametrize("archive", [False, True])
@pytest.mark.parametrize("where", WHERE)
def test_a_folder_and_an_archive_read_back_across_chunks(tmp_path, archive, where):
    write_zspy(tmp_path / "a.zspy", SHAPE, CHUNKS, COUNTS, archive=archive)
    with open_raw(tmp_path / "a.zspy") as raw:
        assert raw.shape == SHAPE and raw.dtype == np.uint16 and raw.chunks == CHUNKS
        np.testing.assert_array_equal(raw.data[where], COUNTS[where])


def test_the_calibration_is_that_of_an_hspy(tmp_path):
    write_zspy(tmp_path / "a.zspy", SHAPE, CHUNKS, COUNTS)
    with open_raw(tmp_path / "a.zspy") as raw:
        assert raw.metadata == {
            "scan_shape": (3, 5),
            "scan_step_angstrom": (20.0, 20.0),
            "detector_pixel_inv_angstrom": pytest.approx(0.02),
            "beam_energy_kev": 200.0,
            "convergence_mrad": 1.2,
            "precession_mrad": pytest.approx(8.7266, rel=1e-4),
        }


PACKERS = {None: bytes, "zlib": zlib.compress, "gzip": gzip.compress, "bz2": bz2.compress, "lzma": lzma.compress}


@pytest.mark.parametrize("name", PACKERS)
@pytest.mark.parametrize("dtype", ["<u2", ">u2", "u1", "<f4"])
def test_every_compressor_that_is_read_reads_back_in_every_type(tmp_path, name, dtype):
    data = (COUNTS % 251).astype(dtype)
    compressor = name and {"id": name}
    write_zspy(tmp_path / "a.zspy", SHAPE, CHUNKS, data, lambda d: PACKERS[name](d.tobytes()), compressor=compressor)
    with open_raw(tmp_path / "a.zspy") as raw:
        assert raw.dtype == np.dtype(dtype)
        np.testing.assert_array_equal(raw.data[0:3], data)


def test_chunks_in_fortran_order_are_turned(tmp_path):
    write_zspy(tmp_path / "a.zspy", SHAPE, CHUNKS, COUNTS, lambda d: d.tobytes("F"), compressor=None, order="F")
    with open_raw(tmp_path / "a.zspy") as raw:
        np.testing.assert_array_equal(raw.data[1], COUNTS[1])


def test_what_is_not_read_is_refused(tmp_path):
    write_zspy(tmp_path / "a.zspy", SHAPE, CHUNKS, COUNTS, compressor={"id": "zfpy"})
    refuses(tmp_path / "a.zspy", "zfpy", "without naming a compressor")
    write_zspy(tmp_path / "b.zspy", SHAPE, CHUNKS, COUNTS, filters=[{"id": "delta"}])
    refuses(tmp_path / "b.zspy", "delta", "no filters")
    (tmp_path / "c.zspy").mkdir()
    refuses(tmp_path / "c.zspy", "no signals of HyperSpy")
    (tmp_path / "c.zspy" / "zarr.json").write_text("{}")
    refuses(tmp_path / "c.zspy", "format 3", ".save('scan.hspy')")
    (tmp_path / "d.zspy").touch()
    refuses(tmp_path / "d.zspy", "an empty file")
    write_zspy(tmp_path / "e.zspy", SHAPE[:2], (3, 5), COUNTS[:, :, 0, 0])
    refuses(tmp_path / "e.zspy", "no scan among Experiments/scan")


def test_signal_axes_that_are_not_last_are_refused(tmp_path):
    write_zspy(tmp_path / "a.zspy", SHAPE, CHUNKS, COUNTS)
    for i in range(4):
        place = tmp_path / "a.zspy" / "Experiments" / "scan" / f"axis-{i}" / ".zattrs"
        place.write_text(place.read_text().replace("true" if i < 2 else "false", "false" if i < 2 else "true"))
    refuses(tmp_path / "a.zspy", "navigate", "transpose")


def test_several_signals_ask_for_one(tmp_path):
    write_zspy(tmp_path / "a.zspy", SHAPE, CHUNKS, COUNTS)
    group = tmp_path / "a.zspy" / "Experiments"
    write_zspy(tmp_path / "b.zspy", SHAPE, SHAPE, COUNTS + 1)
    (tmp_path / "b.zspy" / "Experiments" / "scan").rename(group / "other")
    refuses(tmp_path / "a.zspy", "2 scans", "Experiments/other", "dataset: Experiments/other")
    refuses(tmp_path / "a.zspy", "no scan `x`", "Experiments/scan", dataset="x")
    for name in ("Experiments/other", "/Experiments/other/data"):
        with open_raw(tmp_path / "a.zspy", name) as raw:
            np.testing.assert_array_equal(raw.data[1, 2], COUNTS[1, 2] + 1)


def test_a_store_that_was_not_copied_whole_is_refused(tmp_path):
    write_zspy(tmp_path / "a.zspy", SHAPE, CHUNKS, COUNTS)
    (tmp_path / "a.zspy/Experiments/scan/data/0/1/0/1").unlink()
    refuses(tmp_path / "a.zspy", "1 chunks that are missing", "data/0/1/0/1", "whole")
    write_zspy(tmp_path / "b.zspy", SHAPE, CHUNKS, COUNTS, archive=True)
    whole = (tmp_path / "b.zspy").read_bytes()
    for share in (0.1, 0.5, 0.99):
        (tmp_path / "b.zspy").write_bytes(whole[: int(len(whole) * share)])
        refuses(tmp_path / "b.zspy", "complete .zspy")


@pytest.mark.parametrize("damage", ["cut", "header", "payload"])
def test_a_damaged_chunk_is_named_when_it_is_read(tmp_path, damage):
    few = COUNTS // 30000
    write_zspy(tmp_path / "a.zspy", SHAPE, (1, 5, 8, 6), few)
    place = tmp_path / "a.zspy/Experiments/scan/data/1/0/0/0"
    content = bytearray(place.read_bytes())
    if damage == "cut":
        content = content[:-7]
    elif damage == "header":
        content[5] ^= 0x10  # would make HDF5's filter hand out more bytes than the chunk has
    else:
        content[16:] = bytes(len(content) - 16)
    place.write_bytes(content)
    with open_raw(tmp_path / "a.zspy") as raw:
        np.testing.assert_array_equal(raw.data[0], few[0])
        with pytest.raises(InputError, match="that cannot be read") as caught:
            raw.data[1]
        assert caught.value.where == str(tmp_path / "a.zspy")


def test_a_chunk_is_unpacked_once_while_its_frames_are_read(tmp_path):
    write_zspy(tmp_path / "a.zspy", SHAPE, (3, 5, 8, 6), COUNTS)
    with open_raw(tmp_path / "a.zspy") as raw:  # which reads the last frame, and with it the only chunk
        (tmp_path / "a.zspy/Experiments/scan/data/0/0/0/0").unlink()
        np.testing.assert_array_equal([raw.data[y, x] for y in range(3) for x in range(5)], COUNTS.reshape(15, 8, 6))


def test_blosc_that_shrinks_and_blosc_that_copies_both_read_back(tmp_path):
    for name, data in (("noise", COUNTS), ("few", COUNTS // 30000)):
        assert (len(blosc(data)) < data.nbytes) == (name == "few")
        write_zspy(tmp_path / f"{name}.zspy", SHAPE, SHAPE, data)
        with open_raw(tmp_path / f"{name}.zspy") as raw:
            np.testing.assert_array_equal(raw.data[0:3], data)
