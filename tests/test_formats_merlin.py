"""Merlin: every bit depth, one chip and four, regions, raw mode, flyback; real files beside those written here."""

import logging
import zipfile

import numpy as np
import pytest
from raw_files import COUNTS, merlin_words, refuses, vendor_folder, write_merlin

from fourdstem.errors import InputError
from fourdstem.formats import open_raw
from fourdstem.methods.scan import Params, resolve_scan_shape, select

vendor_files = pytest.fixture(scope="module")(vendor_folder)


@pytest.fixture(scope="module")
def merlin(vendor_files, tmp_path_factory):
    folder = tmp_path_factory.mktemp("merlin")
    for archive in (vendor_files / "quantumdetector").glob("*.zip"):
        with zipfile.ZipFile(archive) as opened:
            opened.extractall(folder)
    return folder


def test_a_merlin_file_reads_as_rosettasciio_reads_it(tmp_path, caplog):
    from rsciio.quantumdetector import file_reader

    write_merlin(tmp_path / "a.mib", COUNTS.reshape(15, 8, 6))
    caplog.set_level(logging.ERROR)
    other = file_reader(str(tmp_path / "a.mib"), navigation_shape=(5, 3))[0]["data"]
    with open_raw(tmp_path / "a.mib") as raw:
        assert raw.shape == (15, 8, 6)
        assert raw.dtype == np.dtype(">u2")
        np.testing.assert_array_equal(raw.data[5:8], other[1, :3])
        np.testing.assert_array_equal(raw.data[5:8], COUNTS[1, :3, ::-1])
        assert raw.metadata == {}
        assert raw.notes == ("no .hdr beside it",)


@pytest.mark.parametrize(
    ("hdr", "shape"),
    [
        ({"ScanX": 5, "ScanY": 3}, (3, 5)),
        ({"Frames in Acquisition (Number)": 15, "Frames per Trigger (Number)": 5}, (3, 5)),
        ({"Frames in Acquisition (Number)": 15, "Frames per Trigger (Number)": 1}, None),
        ({"Frames in Acquisition (Number)": 15, "Frames per Trigger (Number)": 15}, None),
        ({"Frames in Acquisition (Number)": 15, "Frames per Trigger (Number)": 4}, None),
    ],
)
def test_a_merlin_scan_shape_comes_from_its_header_or_not_at_all(tmp_path, hdr, shape):
    write_merlin(tmp_path / "a.mib", COUNTS.reshape(15, 8, 6), hdr | {"Counter Depth (number)": 12})
    with open_raw(tmp_path / "a.mib") as raw:
        assert raw.metadata.get("scan_shape") == shape
        assert raw.saturation_counts == 4095


def test_an_interrupted_merlin_scan_keeps_its_complete_frames_and_says_so(tmp_path):
    write_merlin(tmp_path / "a.mib", COUNTS.reshape(15, 8, 6), {"Frames in Acquisition (Number)": 15})
    content = (tmp_path / "a.mib").read_bytes()
    (tmp_path / "a.mib").write_bytes(content[:-50])
    with open_raw(tmp_path / "a.mib") as raw:
        assert raw.shape == (14, 8, 6)
        assert any("incomplete" in note for note in raw.notes)
        assert any("15 frames" in note and "14" in note for note in raw.notes)


@pytest.mark.parametrize("chips", ["1x1", "2x2", "2x2G"])
@pytest.mark.parametrize(("depth", "dtype"), [(1, "u1"), (6, "u1"), (12, "u2"), (24, "u4")])
def test_every_depth_and_arrangement_of_chips_reads_back(tmp_path, chips, depth, dtype):
    side = {"1x1": 16, "2x2": 32, "2x2G": 34}[chips]  # G: two pixels where the chips do not meet
    frames = np.random.default_rng(depth).integers(0, 2**depth, (3, side, side)).astype(dtype)
    write_merlin(tmp_path / "a.mib", frames, None, chips, depth)
    with open_raw(tmp_path / "a.mib") as raw:
        assert raw.shape == (3, side, side)
        assert (raw.dtype.kind, raw.dtype.itemsize) == ("u", frames.itemsize)
        assert raw.saturation_counts == 2**depth - 1
        np.testing.assert_array_equal(raw.data[1:3], frames[1:, ::-1])


def test_the_frame_header_of_a_detector_of_four_chips_with_gaps_suffices(tmp_path):
    frames = np.random.default_rng(2).integers(0, 4096, (2, 514, 514)).astype(np.uint16)
    write_merlin(tmp_path / "a.mib", frames, {"ScanX": 2, "ScanY": 1}, "2x2G")  # no `width` in the .hdr, as always
    with open_raw(tmp_path / "a.mib") as raw:
        assert raw.shape == (2, 514, 514)
        assert raw.metadata == {"scan_shape": (1, 2)}
        np.testing.assert_array_equal(raw.data[1], frames[1, ::-1])


@pytest.mark.parametrize("rows", [16, 64])
def test_a_region_of_interest_keeps_its_rows(tmp_path, rows):
    frames = np.random.default_rng(3).integers(0, 4096, (4, rows, 128)).astype(np.uint16)
    write_merlin(tmp_path / "a.mib", frames)
    with open_raw(tmp_path / "a.mib") as raw:
        assert raw.shape == (4, rows, 128)
        np.testing.assert_array_equal(raw.data[3], frames[3, ::-1])


# ---- raw mode ---------------------------------------------------------------------------------------------


def raw_chips(stored):
    """Return the row of chips in which raw mode sends a quad frame, for a frame as it is stored when processed."""
    top, bottom = stored[:64], stored[64:, :][::-1, ::-1]
    return np.hstack([bottom[:, :64], bottom[:, 64:], top[:, 64:], top[:, :64]])


@pytest.mark.parametrize("chips", ["1x1", "2x2"])
@pytest.mark.parametrize("depth", [1, 6, 12])
def test_raw_mode_reads_as_processed_frames_do(tmp_path, chips, depth):
    side = 64 if chips == "1x1" else 128
    frames = np.random.default_rng(depth).integers(0, 2**depth, (3, side, side)).astype("u2" if depth == 12 else "u1")
    packed = [merlin_words(f if chips == "1x1" else raw_chips(f), depth) for f in frames]
    write_merlin(tmp_path / "raw.mib", frames, None, chips, depth, packed)
    write_merlin(tmp_path / "processed.mib", frames, None, chips, depth)
    with open_raw(tmp_path / "raw.mib") as raw, open_raw(tmp_path / "processed.mib") as processed:
        assert raw.shape == processed.shape
        assert raw.dtype.itemsize == processed.dtype.itemsize
        assert raw.saturation_counts == processed.saturation_counts
        for where in (slice(0, 3), slice(1, 2), 2, -1, (1, slice(3, 9), 5), (slice(0, 3, 2), 7)):
            np.testing.assert_array_equal(raw.data[where], processed.data[where])
        assert any("raw mode" in note for note in raw.notes)


@pytest.mark.parametrize(("chips", "depth"), [("1x1", 24), ("1x1", 0), ("2x2G", 12), ("Nx1", 12)])
def test_raw_modes_whose_layout_is_not_known_are_refused(tmp_path, chips, depth):
    write_merlin(tmp_path / "a.mib", np.zeros((1, 64, 64), "u2"), None, chips, depth, [bytes(64 * 64 * 2)])
    refuses(tmp_path / "a.mib", "R64", chips, "raw mode off")


@pytest.mark.parametrize("chips", ["Single", "Quad"])
def test_real_raw_frames_show_the_noisy_pixels_of_real_processed_frames(merlin, chips):
    # Without a beam, 1 bit: a few per cent of the pixels count in nearly every exposure, the same in both modes.
    means = []
    for mode in ("RAW", ""):
        path = merlin / f"{chips}_9_Frame_CounterDepth_1_Rows_256{mode}.mib"
        with open_raw(path) as raw:
            assert raw.shape == (9, 256, 256) if chips == "Single" else (9, 512, 512)
            means.append(raw.data[0:9].mean(axis=0))
    assert np.corrcoef(means[0].ravel(), means[1].ravel())[0, 1] > 0.999
    assert all(np.corrcoef(means[0].ravel(), m.ravel())[0, 1] < 0.6 for m in (means[1][::-1], means[1][:, ::-1]))


# ---- flyback ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", [False, True])
def test_frames_of_the_flyback_are_refused_with_the_setting_that_leaves_them_out(tmp_path, first):
    scan = COUNTS[:, :, :, :4].copy()  # 3 by 5 positions
    flyback = np.full((3, 1, 8, 4), 9999, np.uint16)
    rows = np.concatenate([flyback, scan] if first else [scan, flyback], axis=1)
    hdr = {"ScanX": 5, "ScanY": 3, "Frames in Acquisition (Number)": 18, "Frames per Trigger (Number)": 1}
    write_merlin(tmp_path / "a.mib", rows.reshape(18, 8, 4)[:, ::-1], hdr)
    with open_raw(tmp_path / "a.mib") as raw:
        with pytest.raises(InputError) as caught:
            resolve_scan_shape(raw.shape, raw.metadata["scan_shape"])
        assert "[3, 5] (15 positions)" in caught.value.found and "18 frames" in caught.value.found
        roi = (0, 3, 1, 6) if first else (0, 3, 0, 5)
        assert "scan_shape: [3, 6]" in caught.value.do and str(list(roi)) in caught.value.do
        counts = select(raw.data, resolve_scan_shape(raw.shape, (3, 6), roi), Params(roi=roi))
        np.testing.assert_array_equal([counts[y, 0:5] for y in range(3)], scan)


def test_frames_behind_the_scan_are_refused_with_the_setting_that_leaves_them_out(tmp_path):
    write_merlin(tmp_path / "a.mib", COUNTS.reshape(15, 8, 6)[:, ::-1])
    with open_raw(tmp_path / "a.mib") as raw:
        with pytest.raises(InputError) as caught:
            resolve_scan_shape(raw.shape, (2, 7))
        assert "scan_shape: [3, 7] with roi: [0, 2, 0, 7]" in caught.value.do
        roi = (0, 2, 0, 7)
        counts = select(raw.data, resolve_scan_shape(raw.shape, (3, 7), roi), Params(roi=roi))
        np.testing.assert_array_equal(counts[1, 0:7], COUNTS.reshape(15, 8, 6)[7:14])


# ---- files of the vendor ----------------------------------------------------------------------------------


def test_real_merlin_files_read_as_rosettasciio_reads_them(merlin):
    from rsciio.quantumdetector import file_reader

    names = [p for p in sorted(merlin.rglob("*.mib")) if "RAW" not in p.name]
    assert len(names) == 20
    for path in names:
        with open_raw(path) as raw:
            other = np.asarray(file_reader(str(path), navigation_shape=(raw.shape[0],))[0]["data"])
            np.testing.assert_array_equal(raw.data[0 : raw.shape[0]], other.reshape(raw.shape))


def test_a_real_merlin_region_of_interest_states_its_scan(merlin):
    path = next(merlin.rglob("002_merlin_test_roi*.mib"))
    with open_raw(path) as raw:
        assert raw.shape == (8, 128, 256)
        assert raw.metadata == {"scan_shape": (2, 4)}
        assert raw.saturation_counts == 4095
