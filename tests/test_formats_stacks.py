"""TIFF and Norpix stacks, and frames that are turned or listed: what is read is what was written."""

import os

import h5py
import numpy as np
import pytest
import tifffile
from raw_files import COUNTS, SHAPE, refuses, write_seq

from fourdstem.errors import InputError
from fourdstem.formats import open_raw
from fourdstem.formats.raw import ListedFrames, TurnedFrames

FRAMES = COUNTS.reshape(15, 8, 6)


# ---- frames that are turned or listed ---------------------------------------------------------------------


@pytest.mark.parametrize("where", [2, slice(1, 3), (1, slice(2, 5)), (-1, 3), (slice(1, 3), 4), (0, 1, slice(2, 4), 3)])
def test_turned_and_listed_frames_slice_as_an_array_does(where, tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        turned = TurnedFrames(file.create_dataset("d", data=COUNTS.transpose(3, 2, 1, 0)), (3, 2, 1, 0))
        assert (turned.shape, turned.dtype, turned.ndim) == (SHAPE, COUNTS.dtype, 4)
        np.testing.assert_array_equal(turned[where], COUNTS[where])
    listed = ListedFrames(lambda i: FRAMES[i], SHAPE[:2], SHAPE[2:], COUNTS.dtype)
    assert (listed.shape, listed.dtype, listed.ndim) == (SHAPE, COUNTS.dtype, 4)
    np.testing.assert_array_equal(listed[where], COUNTS[where])


# ---- TIFF -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [{}, {"compression": "zlib"}, {"byteorder": ">"}, {"bigtiff": True}, {"imagej": True}]
)
@pytest.mark.parametrize("dtype", ["u1", "u2", "f4"])
def test_a_tiff_stack_reads_back_and_asks_for_its_scan_shape(tmp_path, options, dtype):
    frames = (FRAMES % 200).astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", frames, photometric="minisblack", resolution=(10, 10), **options)
    with open_raw(tmp_path / "a.tif") as raw:
        assert raw.shape == (15, 8, 6)
        assert raw.dtype.kind == np.dtype(dtype).kind and raw.dtype.itemsize == np.dtype(dtype).itemsize
        np.testing.assert_array_equal(raw.data[3:9], frames[3:9])
        assert raw.metadata == {}


def test_pages_saved_one_by_one_are_one_stack(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tiff") as file:
        for frame in FRAMES:
            file.write(frame, contiguous=False, metadata=None)
    with open_raw(tmp_path / "a.tiff") as raw:
        assert raw.shape == (15, 8, 6)
        np.testing.assert_array_equal(raw.data[4:7], FRAMES[4:7])


def test_a_tiff_written_from_four_axes_keeps_them_and_one_of_imagej_does_not(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", COUNTS, photometric="minisblack")
    with open_raw(tmp_path / "a.tif") as raw:
        assert raw.metadata == {"scan_shape": (3, 5)}
        np.testing.assert_array_equal(raw.data[1, 2:4], COUNTS[1, 2:4])
    tifffile.imwrite(tmp_path / "b.tif", COUNTS, imagej=True, metadata={"axes": "TZYX"})
    with open_raw(tmp_path / "b.tif") as raw:
        assert raw.shape == (15, 8, 6)
        np.testing.assert_array_equal(raw.data[6], FRAMES[6])
        assert any("TZYX" in note for note in raw.notes)


def test_tiff_files_that_hold_no_stack_are_refused(tmp_path):
    tifffile.imwrite(tmp_path / "one.tif", FRAMES[0])
    refuses(tmp_path / "one.tif", "0 stacks", "(8, 6)", "multi-page")
    tifffile.imwrite(tmp_path / "rgb.tif", np.zeros((8, 6, 3), np.uint8), photometric="rgb")
    refuses(tmp_path / "rgb.tif", "0 stacks")
    (tmp_path / "no.tif").write_bytes(b"this is not a scan" * 100)
    refuses(tmp_path / "no.tif", "TIFF")


@pytest.mark.parametrize("cut", [0.3, 0.7, 0.95])
@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}, {"metadata": None}])
def test_a_truncated_tiff_is_refused(tmp_path, options, cut):
    tifffile.imwrite(tmp_path / "a.tif", FRAMES, photometric="minisblack", **options)
    os.truncate(tmp_path / "a.tif", int((tmp_path / "a.tif").stat().st_size * cut))
    refuses(tmp_path / "a.tif", "truncated")


def test_a_cut_imagej_stack_is_refused_or_whole(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", FRAMES, imagej=True)
    whole = (tmp_path / "a.tif").read_bytes()
    end = whole.index(FRAMES.tobytes()) + FRAMES.nbytes
    for cut in range(16, len(whole), 61):
        (tmp_path / "a.tif").write_bytes(whole[:cut])
        if cut < end:
            refuses(tmp_path / "a.tif")
            continue
        try:
            raw = open_raw(tmp_path / "a.tif")
        except InputError:
            continue
        np.testing.assert_array_equal(raw.data[0:15], FRAMES)


def test_a_tiff_whose_chain_of_pages_breaks_off_is_refused(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for frame in FRAMES:
            file.write(frame, contiguous=False, metadata=None)
    whole = (tmp_path / "a.tif").read_bytes()
    for cut in range(200, len(whole) - 1, 97):
        (tmp_path / "a.tif").write_bytes(whole[:cut])
        refuses(tmp_path / "a.tif")


# ---- Norpix -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [3, 5])
@pytest.mark.parametrize("dtype", ["u1", "<u2"])
def test_a_norpix_sequence_reads_back_as_a_stack(tmp_path, version, dtype):
    frames = (FRAMES % 200).astype(dtype)
    write_seq(tmp_path / "a.seq", frames, version)
    (tmp_path / "a.seq.dark.mrc").touch()
    with open_raw(tmp_path / "a.seq") as raw:
        assert raw.shape == (15, 8, 6)
        assert raw.dtype == np.dtype(dtype)
        np.testing.assert_array_equal(raw.data[2:14], frames[2:14])
        assert raw.metadata == {}
        assert raw.saturation_counts == (255 if dtype == "u1" else 4095)
        assert any("a.seq.dark.mrc" in note for note in raw.notes)


def test_an_interrupted_sequence_keeps_its_complete_frames_and_says_so(tmp_path):
    write_seq(tmp_path / "a.seq", FRAMES, announced=20)
    os.truncate(tmp_path / "a.seq", (tmp_path / "a.seq").stat().st_size - 1100)
    with open_raw(tmp_path / "a.seq") as raw:
        assert raw.shape == (14, 8, 6)
        assert any("incomplete" in note for note in raw.notes)
        assert any("20 frames" in note and "14" in note for note in raw.notes)


def test_sequences_that_cannot_be_read_are_refused(tmp_path):
    write_seq(tmp_path / "a.seq", FRAMES, compression=1)
    refuses(tmp_path / "a.seq", "compression 1", "StreamPix")
    write_seq(tmp_path / "b.seq", FRAMES, image_format=102)
    refuses(tmp_path / "b.seq", "format 102")
    (tmp_path / "c.seq").write_bytes(b"this is not a scan" * 100)
    refuses(tmp_path / "c.seq", "no header of a Norpix")
    write_seq(tmp_path / "d.seq", FRAMES[:1])
    os.truncate(tmp_path / "d.seq", 8200)
    refuses(tmp_path / "d.seq", "no complete frame")
