"""Clusters of a factorisation as crystals: a scan of two phases whose truth is known."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fabricated import results
from test_crystal import build
from test_orientation import COARSE, DISK, OPTICS, SIZE, from_diffsims, random_orientations

from fourdstem import config, io, report
from fourdstem.cube import Cube
from fourdstem.errors import InputError
from fourdstem.methods import clusters, nmf
from fourdstem.methods.orientation import misorientation_deg

HEXAGONAL, DOSE = "6/mmm", 20000


@pytest.fixture(scope="module")
def both():
    return [build("m-3m"), build(HEXAGONAL)]


@pytest.fixture(scope="module")
def scan():
    """Two grains of gold, two of titanium, side by side, and a column of no crystal: counts, grain, orientations."""
    truth = random_orientations(4, 6)
    crystals = [from_diffsims("m-3m", truth[:2]), from_diffsims(HEXAGONAL, truth[2:])]
    noise = np.random.default_rng(0).permutation(crystals[0][0].ravel()).reshape(1, SIZE, SIZE)
    patterns = np.concatenate([*crystals, noise])
    patterns *= DOSE / patterns.sum(axis=(1, 2), keepdims=True)
    grain = np.broadcast_to(np.repeat(np.arange(5), [4, 4, 4, 4, 2]), (8, 18))
    counts = np.random.default_rng(1).poisson(patterns[grain] + 0.02).astype(np.float32)
    return counts, grain, truth


@pytest.fixture(scope="module")
def factorised(scan, tmp_path_factory):
    cube = Cube(scan[0], OPTICS)
    params = nmf.Params(rank_range=(4, 6), starts=1, tolerance=1e-5, unexplained=0)
    return nmf.compute(cube, cube, params, DISK, tmp_path_factory.mktemp("nmf"))


def named(factorised, crystals, **values):
    valid = np.ones((SIZE, SIZE), np.uint8)
    params = clusters.Params(**values)
    return clusters.compute(factorised.cluster_mean, factorised.cluster, valid, OPTICS, crystals, params, COARSE)


@pytest.fixture(scope="module")
def found(factorised, both):
    return named(factorised, both)


def test_every_cluster_has_the_phase_and_the_orientation_of_its_grain(found, factorised, scan, both):
    _, grain, truth = scan
    assert len(found.phase) == 5
    for g in range(4):
        c = np.bincount(factorised.cluster[grain == g]).argmax()
        assert found.phase[c] == g // 2
        assert misorientation_deg(found.orientation[c], truth[g], both[g // 2]) < 2
        assert found.correlation[c] > 0.8 and found.phase_reliability[c] > 5
    assert (found.phase_map[grain < 4] == grain[grain < 4] // 2).mean() > 0.98
    assert min((found.phase_map == k).mean() for k in range(2)) > 0.43


def test_the_pattern_of_no_crystal_gets_no_phase_where_little_correlation_does_not_count(factorised, scan, both):
    c = np.bincount(factorised.cluster[scan[1] == 4]).argmax()
    valid = np.ones((SIZE, SIZE), np.uint8)
    given = factorised.cluster_mean, factorised.cluster, valid, OPTICS, both, clusters.Params()
    found = clusters.compute(*given, replace(COARSE, minimum_correlation=0.6))
    assert (found.phase < 0).nonzero()[0].tolist() == [c]
    assert np.isnan(found.orientation[c]).all() and (found.phase_map[scan[1] == 4] == -1).mean() > 0.95
    row = clusters.rows(found)[c]
    assert dict(zip(clusters.COLUMNS, row, strict=True))["phase"] == "" and len(clusters.rows(found)) == 5


def test_the_zone_axis_is_the_lattice_direction_next_to_the_beam(found, both):
    every = np.stack(np.meshgrid(*[np.arange(-3, 4)] * 3), -1).reshape(-1, 3)
    every = every[every.any(axis=1)]
    for c in np.flatnonzero(found.phase >= 0):
        w, x, y, z = found.orientation[c].astype(float)
        beam = [2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)]  # third column of the matrix
        along = found.zone_axis[c] @ both[found.phase[c]].lattice
        angle = np.rad2deg(np.arccos(along @ beam / np.linalg.norm(along)))
        others = every @ both[found.phase[c]].lattice
        nearest = np.rad2deg(np.arccos(np.clip(others @ beam / np.linalg.norm(others, axis=1), -1, 1))).min()
        assert angle == pytest.approx(found.zone_axis_off_deg[c], abs=0.05) and angle < 15  # of indices up to 3
        assert angle == pytest.approx(nearest, abs=0.01) and np.gcd.reduce(found.zone_axis[c]) == 1


def test_a_cluster_of_too_few_positions_is_not_indexed(factorised, both):
    found = named(factorised, both, fewest_positions=20)
    assert np.array_equal(found.phase < 0, factorised.cluster_size_px < 20) and (found.phase < 0).any()


def test_one_phase_has_no_reliability_of_the_phase(factorised, both):
    found = named(factorised, both[:1])
    assert found.phase_reliability is None and found.phase_name == ("m-3m",)
    assert np.isnan(dict(zip(clusters.COLUMNS, clusters.rows(found)[0], strict=True))["phase_reliability"])


def test_without_crystals_nothing_is_named_and_the_message_says_what_to_do(factorised):
    with pytest.raises(InputError) as error:
        named(factorised, [])
    assert "no phase" in str(error.value) and "Name the phases" in str(error.value)


def test_a_stage_that_names_clusters_factorises_too_and_needs_a_crystal():
    sample = {"name": "film", "file": __file__, "stages": ["clusters"], "phases": ["gold"]}
    settings = {"phases": [{"name": "gold", "cif": str(Path("config/cif/gold.cif"))}], "samples": [sample]}
    config.check(settings)
    assert {"nmf", "clusters"} <= set(config.stages(settings, "film"))
    assert "detector_pixel_inv_angstrom" in config.needed_acquisition(settings, "film")
    sample["phases"] = []
    with pytest.raises(config.ConfigError, match="clusters and simulate need at least one phase"):
        config.check(settings)


def test_the_result_is_read_back_as_it_was_written(found, tmp_path):
    with io.create(tmp_path / "clusters.h5", {"stage": "clusters", "settings": {}, "code": "0"}, OPTICS) as file:
        file.write(found)
    again = io.read_result(tmp_path / "clusters.h5", clusters.Result)
    for name in clusters.Result.__dataclass_fields__:
        assert np.array_equal(getattr(again, name), getattr(found, name)) or np.allclose(
            getattr(again, name), getattr(found, name), equal_nan=True
        )


def test_the_report_lists_clusters_or_says_why_they_have_no_name(tmp_path):
    sample = report.read(**results(tmp_path / "film", stages=("nmf", "clusters"), phases=2, indexed=False))
    html = str(report.clusters(sample))
    assert "not indexed" in html and "[0 0 1], 1.5° off" in html and "gold" in html and "iron" in html
    assert "fit no crystal structure" in str(report.warnings(sample))
    assert "gold" in str(report.headline(sample)) and "was indexed by template matching" in str(report.methods(sample))
    without = replace(sample, clusters=None)
    assert "are not named: add <code>clusters</code>" in str(report.clusters(without))
    assert "name crystal structures" in str(report.clusters(replace(without, crystals=[])))
