"""Weight from beyond a boundary, judged by the orientation map."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from fourdstem.crystal import read_cif
from fourdstem.methods.orientation import foreign_weight


def turned(deg):
    half = np.deg2rad(deg) / 2
    return [np.cos(half), 0, 0, np.sin(half)]


@pytest.fixture
def row():
    """Five positions in a row: 0°, 3° and 93° (the same in a cubic crystal), 20°, not indexed."""
    angles = [0, 3, 93, 20, 0]
    found = SimpleNamespace(
        phase=np.array([[0, 0, 0, 0, -1]]), orientation=np.array([[turned(a) for a in angles]], np.float32)
    )
    found.orientation[0, 4] = np.nan
    return found, [read_cif(Path(__file__).parents[1] / "config" / "cif" / "gold.cif", "gold")]


def test_only_members_of_another_orientation_are_foreign(row):
    member = np.broadcast_to(np.arange(5), (1, 5, 5)).astype(np.int32)
    weight = np.broadcast_to([0.4, 0.1, 0.2, 0.1, 0.2], (1, 5, 5)).astype(np.float32)
    share = foreign_weight(row[0], member, weight, row[1])
    np.testing.assert_allclose(share[0, :3], 0.1 / 0.8, rtol=1e-6)
    assert share[0, 3] == pytest.approx(0.7 / 0.8, rel=1e-6)
    assert np.isnan(share[0, 4])


def test_members_that_are_missing_or_of_another_phase(row):
    found, crystals = row
    found.phase = np.array([[0, 0, 1, 0, -1]])
    member = np.full((1, 5, 3), -1, np.int32)
    member[0, :, 0], member[0, :, 1] = np.arange(5), 2
    weight = np.full((1, 5, 3), 0.5, np.float32)
    weight[..., 2] = 0
    share = foreign_weight(found, member, weight, [crystals[0], crystals[0]])
    np.testing.assert_allclose(share[0, [0, 1, 3]], 0.5, rtol=1e-6)
    assert share[0, 2] == 0
