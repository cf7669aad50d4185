"""Raw HDF5 files, ours and the vendors': which dataset is taken, what calibrates it, how blocks are joined."""

import h5py
import hdf5plugin
import numpy as np
import pytest
from raw_files import COUNTS, SHAPE, refuses, vendor_folder

from fourdstem.formats import list_candidates, open_raw
from fourdstem.formats.raw import JoinedFrames

vendor_files = pytest.fixture(scope="module")(vendor_folder)


def test_our_own_simulated_file_is_read_whatever_else_it_holds(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("counts", data=COUNTS, chunks=(1, 5, 8, 6), **hdf5plugin.Bitshuffle(cname="lz4"))
        file["truth/grain_fraction"] = np.zeros((3, 5, 4))
        file["truth/expected"] = np.zeros(SHAPE)
        acquisition = {"beam_energy_kev": 200.0, "scan_step_angstrom": [20.0, 10.0], "scan_rotation_deg": -90.0}
        for key, value in (acquisition | {"detector_flip_y": True}).items():
            file[f"acquisition/{key}"] = value
    with open_raw(tmp_path / "a.h5") as raw:
        np.testing.assert_array_equal(raw.data[1, 1:3], COUNTS[1, 1:3])
        assert raw.hdf5_location == (str(tmp_path / "a.h5"), "/counts")
        assert raw.chunks == (1, 5, 8, 6)
        assert raw.metadata == {
            "beam_energy_kev": 200.0,
            "scan_step_angstrom": (20.0, 10.0),
            "scan_rotation_deg": -90.0,
            "detector_flip_y": True,
            "scan_shape": (3, 5),
        }


def test_loose_attributes_give_values_but_no_conventions(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["entry/data"] = COUNTS
        file["entry"].attrs["beam_energy_kev"] = 300.0
        file["entry/data"].attrs.update({"scan_rotation_deg": -126.0, "camera": "K3"})
    with open_raw(tmp_path / "a.h5") as raw:
        assert raw.metadata == {"beam_energy_kev": 300.0, "scan_shape": (3, 5)}
        assert "scan_rotation_deg = -126.0" in raw.notes[0]
        assert "camera = K3" in raw.notes[0]


def test_nexus_axes_calibrate_a_scan(tmp_path):
    with h5py.File(tmp_path / "a.nxs", "w") as file:
        group = file.create_group("entry/data")
        group["data"] = COUNTS
        group.attrs["axes"] = ["y", "x", "ky", "kx"]
        for name, n, step, unit in (
            ("y", 3, 2, "nm"),
            ("x", 5, 2, "nm"),
            ("ky", 8, 0.3, "mrad"),
            ("kx", 6, 0.3, "mrad"),
        ):
            group[name] = np.arange(n) * step
            group[name].attrs["units"] = unit
    with open_raw(tmp_path / "a.nxs") as raw:
        assert raw.metadata["scan_step_angstrom"] == (20.0, 20.0)
        assert raw.metadata["detector_pixel_mrad"] == pytest.approx(0.3)


def test_several_candidates_are_listed_and_one_can_be_named(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["a"] = COUNTS
        file["deep/b"] = COUNTS[:2]
        file["again"] = h5py.SoftLink("/a")
    refuses(tmp_path / "a.h5", "/a (3, 5, 8, 6) uint16", "/deep/b (2, 5, 8, 6)", "dataset: /a")
    assert {name for name, _, _ in list_candidates(tmp_path / "a.h5")} == {"/a", "/deep/b"}
    with open_raw(tmp_path / "a.h5", "deep/b") as raw:
        assert raw.shape == (2, 5, 8, 6)
    refuses(tmp_path / "a.h5", "no dataset `deep/c`", "/deep/b", "dataset:", dataset="deep/c")


def test_a_named_dataset_of_the_wrong_kind_is_refused(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["image"] = COUNTS[0, 0]
        file["five"] = COUNTS[None]
        file["complex"] = COUNTS.astype(complex)
    for name in ("image", "five", "complex"):
        refuses(tmp_path / "a.h5", f"`{name}` of shape", dataset=name)
    refuses(tmp_path / "a.h5", "no scan", "/five (1, 3, 5, 8, 6)", "4 axes")


def test_a_link_to_a_file_that_is_not_there_is_named(tmp_path):
    with h5py.File(tmp_path / "master.h5", "w") as file:
        file["entry/data/data_000001"] = h5py.ExternalLink("gone.h5", "/entry/data")
    refuses(tmp_path / "master.h5", "gone.h5", "beside")


def test_blocks_of_frames_are_joined_and_read_across_their_borders(tmp_path):
    frames = COUNTS.reshape(15, 8, 6)
    with h5py.File(tmp_path / "master.h5", "w") as master:
        for i, (first, last) in enumerate(((0, 4), (4, 11), (11, 15)), 1):
            with h5py.File(tmp_path / f"d{i}.h5", "w") as file:
                file["frames"] = frames[first:last]
            master[f"entry/data/data_{i:06d}"] = h5py.ExternalLink(f"d{i}.h5", "frames")
        master["entry/instrument/detector/detectorSpecific/photon_energy"] = 300000.0
    with open_raw(tmp_path / "master.h5") as raw:
        assert raw.shape == (15, 8, 6)
        assert raw.hdf5_location is None
        assert raw.metadata == {"beam_energy_kev": 300.0}
        for where in (slice(2, 13), slice(5, 6), slice(1, 15, 3), slice(3, 12, 2), slice(15, 20)):
            np.testing.assert_array_equal(raw.data[where], frames[where])
        np.testing.assert_array_equal(raw.data[11], frames[11])


def test_joined_frames_agree_with_one_array_for_every_slice():
    frames = np.arange(11)[:, None, None] * np.ones((1, 2, 2))
    joined = JoinedFrames((frames[:3], frames[3:4], frames[4:]))
    for a in range(11):
        for b in range(a, 12):
            for step in (1, 2, 3):
                np.testing.assert_array_equal(joined[a:b:step], frames[a:b:step])
    np.testing.assert_array_equal(joined[-1], frames[-1])


def test_blocks_of_different_shapes_are_not_joined(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["data_1"], file["data_2"] = COUNTS[0], COUNTS[0, :, 1:]
    refuses(tmp_path / "a.h5", "differ in shape", "dataset:")


# ---- files of the vendors ---------------------------------------------------------------------------------


def test_a_real_arina_master_finds_its_data_file(vendor_files):
    with open_raw(vendor_files / "arina" / "test_00_master.h5") as raw:
        assert raw.shape == (16, 192, 192)
        # the sidecar states 4 by 4 positions, and that its pixel size is not calibrated
        assert raw.metadata == {"beam_energy_kev": 300.0, "scan_shape": (4, 4)}
        assert raw.saturation_counts == 8352
        assert raw.hdf5_location[0].endswith("test_00_data_000001.h5")


def test_a_real_py4dstem_file_keeps_its_calibration(vendor_files):
    with open_raw(vendor_files / "emd" / "py4DSTEM_size2x3x4x5.h5") as raw:
        assert raw.shape == (2, 3, 4, 5)
        assert raw.metadata["detector_pixel_inv_angstrom"] == pytest.approx(0.0442515666)
        assert raw.metadata["scan_step_angstrom"] == pytest.approx((1.26796875, 1.26796875))


def test_a_depth_series_of_cubes_asks_for_one_of_them(vendor_files):
    path = vendor_files / "emd" / "Si100_4D.emd"
    error = refuses(path, "depth0000", "depth0001", "dataset:")
    name = error.do.split("`")[-2].removeprefix("dataset: ")
    with open_raw(path, name) as raw:
        assert raw.shape == (11, 11, 8, 8)
        assert raw.metadata["scan_step_angstrom"] == pytest.approx((5.0, 5.0))
        assert raw.metadata["detector_pixel_inv_angstrom"] == pytest.approx(0.0184162, rel=1e-5)
