"""A scan simulated by others: are in-plane angles better after averaging than before, and by how much?

The scan (`orient4d_sim/scan_32.npz`, MIT licence) holds two invented two-dimensional lattices, six grains, 300
electrons per pattern, an orientation spread of 0.3° inside each grain and beam positions that jitter by 0.3 px.
Its lattices, from its authors' description: hexagonal, a = 2.46 Å, and square, a = 2.03 Å; the angle is that of
the first real-space vector from +detector_x towards +detector_y.
"""

import functools
import json
import os
from pathlib import Path

import numpy as np
import pytest

from fourdstem.cube import Cube
from fourdstem.methods import nonlocal_average

LATTICES = 2.46 * np.array([[1, 0], [0.5, np.sqrt(0.75)]]), 2.03 * np.eye(2)  # rows; hexagonal, square
FOLD_DEG = np.array([60.0, 90.0])
STEP_DEG = 0.25


@pytest.fixture(scope="module")
def scan():
    folder = os.environ.get("FOURDSTEM_TEST_DATA")
    if folder is None:
        pytest.skip("FOURDSTEM_TEST_DATA is not set")
    with np.load(Path(folder) / "orient4d_sim" / "scan_32.npz") as file:
        return {name: file[name] for name in file.files}


@functools.cache
def lattice_templates(phase, n, k_max, spot_sigma):
    """Noise-free lattices, a Gaussian at each reciprocal point, one per angle: (angle, pixel), mean 0, norm 1."""
    pixel = 2 * k_max / n
    y, x = (np.mgrid[:n, :n] - (n - 1) / 2) * pixel
    inside = (np.hypot(y, x) > 0.25) & (np.hypot(y, x) < k_max)
    h, k = np.mgrid[-4:5, -4:5].reshape(2, -1)
    g = np.stack([h, k], axis=1)[(h != 0) | (k != 0)] @ np.linalg.inv(LATTICES[phase]).T
    g = g[np.hypot(*g.T) < 1.2]
    angles = np.deg2rad(np.arange(0, FOLD_DEG[phase], STEP_DEG))
    gx = np.outer(np.cos(angles), g[:, 0]) - np.outer(np.sin(angles), g[:, 1])
    gy = np.outer(np.sin(angles), g[:, 0]) + np.outer(np.cos(angles), g[:, 1])
    templates = np.zeros((len(angles), inside.sum()))
    for one_y, one_x in zip(gy.T[..., None], gx.T[..., None], strict=True):
        templates += np.exp(-((y[inside] - one_y) ** 2 + (x[inside] - one_x) ** 2) / (2 * spot_sigma**2))
    templates -= templates.mean(axis=1, keepdims=True)
    return templates / np.linalg.norm(templates, axis=1, keepdims=True), inside


def angle_errors(patterns, scan):
    """|error| in degrees of the best-correlated template, infinite where its phase is wrong."""
    about = json.loads(str(scan["meta"]))["det"]
    scores, angles = [], []
    for phase in range(2):
        templates, inside = lattice_templates(phase, about["n_px"], about["k_max"], about["spot_sigma"])
        score = patterns[..., inside].astype(np.float64) @ templates.T
        scores.append(score.max(axis=-1))
        angles.append(score.argmax(axis=-1) * STEP_DEG)
    phase = np.argmax(scores, axis=0)
    angle = np.choose(phase, angles)
    fold = FOLD_DEG[phase]
    error = np.abs((angle - scan["theta"] + fold / 2) % fold - fold / 2)
    return np.where(phase == scan["phase_id"], error, np.inf)


def averaged(counts, **settings):
    out = np.empty(counts.shape, np.float32)
    nonlocal_average.compute(Cube(counts), nonlocal_average.Params(**settings), out)
    return out


def share(error, limit_deg):
    return np.mean(error < limit_deg)


def test_noise_free_lattices_are_found_at_their_angle():
    about = {"n_px": 64, "k_max": 1.35, "spot_sigma": 0.045}
    truth = {"meta": json.dumps({"det": about}), "theta": np.array([[13.0, 41.5], [17.25, 78.0]])}
    truth["phase_id"] = np.array([[0, 0], [1, 1]])
    patterns = np.zeros((2, 2, 64, 64))
    for phase in range(2):
        templates, inside = lattice_templates(phase, about["n_px"], about["k_max"], about["spot_sigma"])
        patterns[phase][:, inside] = templates[np.round(truth["theta"][phase] / STEP_DEG).astype(int)]
    np.testing.assert_allclose(angle_errors(patterns, truth), 0, atol=1e-9)


def test_averaging_brings_angles_down_to_the_spread_within_grains(scan):
    raw, after = (angle_errors(p, scan) for p in (scan["data"], averaged(scan["data"])))
    spread = np.median(
        [np.abs(t - np.median(t)).mean() for t in (scan["theta"][scan["grain_id"] == g] for g in range(6))]
    )
    assert share(raw, 0.5) < 0.78
    assert share(after, 0.5) > 0.85
    assert share(after, 1.0) > 0.985
    # An average cannot follow an orientation that changes at random from position to position.
    assert np.median(after) < spread < np.median(raw)


def test_at_a_tenth_of_the_dose_averaging_rescues_the_map(scan):
    thinned = np.random.default_rng(0).binomial(scan["data"], 0.1).astype(np.uint16)
    raw, after = (angle_errors(p, scan) for p in (thinned, averaged(thinned)))
    assert share(raw, 1.0) < 0.60
    assert share(after, 1.0) > 0.90
    assert np.median(after) < 0.45 * np.median(raw)


def test_beside_boundaries_it_beats_a_box_average_of_the_same_size(scan):
    beside = scan["purity"] < 0.99
    after, box = (angle_errors(averaged(scan["data"], lambda_value=v), scan)[beside] for v in (1.7, 1000.0))
    assert share(after, 1.0) > 0.93
    assert share(box, 1.0) < 0.75
