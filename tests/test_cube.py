"""Streaming: odd sizes, threads, memory."""

import threading
import time

import numpy as np
import pytest

from fourdstem.cube import Correction, Cube, Unit
from fourdstem.geometry import corrected_to_recorded, resample


def make(shape, **options):
    data = np.random.default_rng(5).poisson(3.0, shape).astype(np.uint16)
    return data, Cube(data, **options)


@pytest.mark.parametrize("scan", [(1, 1), (1, 32), (3, 33), (2, 65), (5, 31), (40, 1)])
def test_units_cover_the_scan_once_in_order(scan):
    _, cube = make((*scan, 4, 5))
    covered = [(u.y, x) for u in cube.units() for x in range(u.x0, u.x1)]
    assert covered == [(y, x) for y in range(scan[0]) for x in range(scan[1])]
    assert all(u.x0 % 32 == 0 and 1 <= u.count <= 32 for u in cube.units())


@pytest.mark.parametrize("scan", [(1, 1), (3, 33), (2, 65)])
@pytest.mark.parametrize(("threads", "memory"), [(1, 2000), (4, 2000), (3, 0.01)])
def test_mapped_patterns_are_those_of_the_scan_padded_with_zeros(scan, threads, memory):
    data, cube = make((*scan, 5, 7), threads=threads, memory_mb=memory)
    units = []
    for unit, patterns in cube.map_units(lambda p, unit: p):
        assert patterns.shape == (32, 5, 7)
        assert patterns.dtype == np.float32
        assert np.array_equal(patterns[: unit.count], data[unit.where])
        assert not patterns[unit.count :].any()
        units.append(unit)
    assert units == cube.units()


def test_results_come_in_scan_order_whichever_thread_is_first():
    _, cube = make((6, 40, 3, 3), threads=4)

    def slow_at_first(patterns, unit):
        time.sleep(0.02 if unit.y == 0 else 0)
        return unit.y, unit.x0

    assert [r for _, r in cube.map_units(slow_at_first)] == [(u.y, u.x0) for u in cube.units()]


def test_memory_bounds_how_many_units_are_in_flight():
    class Watched:
        """Counts the units that were read and not yet handed out."""

        def __init__(self, data):
            self.data, self.shape, self.out, self.most = data, data.shape, 0, 0

        def __getitem__(self, where):
            self.out += 1
            self.most = max(self.most, self.out)
            return self.data[where]

    source = Watched(np.zeros((20, 64, 64, 64), np.uint8))
    for _ in Cube(source, threads=8, memory_mb=20).map_units(lambda p, unit: 0):
        source.out -= 1
    unit_mb = 32 * 64 * 64 * 4 / 2**20
    assert source.most * unit_mb * 4 <= 20
    assert source.most > 1


def test_an_error_in_a_thread_reaches_the_caller():
    _, cube = make((4, 40, 3, 3), threads=2)

    def fail(patterns, unit):
        if unit.y == 2:
            raise ValueError("row two")
        return threading.get_ident()

    with pytest.raises(ValueError, match="row two"):
        list(cube.map_units(fail))


def test_reading_applies_the_correction_once():
    data, _ = make((2, 3, 9, 8))
    centre = np.random.default_rng(2).normal([4, 3.5], 0.4, (2, 3, 2))
    centre[1, 1] = np.nan
    bad = np.zeros((9, 8), bool)
    matrix = corrected_to_recorded(1.03, 25, 0, False)
    cube = Cube(data, correction=Correction(centre, matrix, bad, offset_counts=1.0))
    expected = np.empty((3, 9, 8), np.float32)
    patterns = data[0].astype(np.float32) - 1
    resample(patterns, np.ones((9, 8), np.uint8), centre[0], matrix, expected)
    assert np.array_equal(cube.read(Unit(0, 0, 3)), expected)
    assert np.array_equal(cube.pattern(0, 2), expected[2])
    assert np.array_equal(next(iter(cube.map_units(lambda p, unit: p)))[1][:3], expected)
    assert not cube.pattern(1, 1).any()


def test_reading_leaves_the_data_as_they_are():
    data, _ = make((1, 2, 9, 8))
    kept = data.astype(np.float32)
    bad = np.zeros((9, 8), bool)
    bad[4, 4] = True
    source = kept.copy()
    Cube(source, correction=Correction(np.full((1, 2, 2), 4.0), np.eye(2), bad)).pattern(0, 0)
    assert np.array_equal(source, kept)
