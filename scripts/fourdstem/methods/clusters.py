"""Which crystal the clusters of a factorisation show, and how it lies: their mean recorded patterns, indexed.

A mean of many patterns has little noise, so that one index per cluster is surer than one per position; what bends or
overlaps within a cluster is averaged over.
"""

from dataclasses import dataclass, replace
from itertools import product
from math import gcd

import numpy as np

from fourdstem.calibration import Acquisition
from fourdstem.crystal import Crystal
from fourdstem.cube import Cube
from fourdstem.methods import orientation
from fourdstem.rotations import to_matrix
from fourdstem.schema import quantity, setting

LARGEST_INDEX = 3  # of a zone axis that is named
TAKEN = (  # as the matcher tells them, per cluster instead of per position
    *("orientation", "correlation", "second_correlation", "reliability", "ambiguous"),
    *("phase_correlation", "phase_reliability"),
)


@dataclass(frozen=True)
class Params:
    """Which clusters of `nmf` are indexed; how, the settings of `orientation` say."""

    fewest_positions: int = setting(4, "A cluster of fewer positions is not indexed.", minimum=1)


@dataclass(frozen=True)
class Result:
    """Phase and orientation of every cluster of `nmf`; what is not indexed has phase -1, and NaN."""

    phase_name: tuple[str, ...] = quantity("phase", "", "Names of the phases")
    size_px: np.ndarray = quantity("cluster", "px", "Positions of a cluster")
    phase: np.ndarray = quantity("cluster", "", "Phase of a cluster")
    orientation: np.ndarray = quantity("cluster quaternion", "", "Orientation (lab to crystal)")
    correlation: np.ndarray = quantity("cluster", "", "Correlation with the best template")
    second_correlation: np.ndarray = quantity("cluster", "", "Correlation of the best distinct alternative")
    reliability: np.ndarray = quantity("cluster", "", "Reliability 100 (1 - Q2/Q1)")
    ambiguous: np.ndarray = quantity(
        "cluster", "", "1 where half a turn about the beam fits as well within 1 %, and is no symmetry"
    )
    zone_axis: np.ndarray = quantity("cluster uvw", "", "Nearest of the zone axes of small indices along the beam")
    zone_axis_off_deg: np.ndarray = quantity("cluster", "°", "Angle between the beam and this zone axis")
    phase_map: np.ndarray = quantity("scan_y scan_x", "", "Phase of the cluster of a position; -1: none")
    phase_correlation: np.ndarray | None = quantity(
        "cluster phase", "", "Correlation with the best template of each phase", default=None
    )
    phase_reliability: np.ndarray | None = quantity(
        "cluster", "", "Reliability of the phase, 100 (1 - Q of the next phase / Q)", default=None
    )


def compute(
    mean: np.ndarray,
    cluster: np.ndarray,
    valid: np.ndarray,
    acquisition: Acquisition,
    crystals: list[Crystal],
    params: Params,
    matching: orientation.Params,
    device: str = "cpu",
) -> Result:
    """Index the mean patterns of clusters.

    Parameters
    ----------
    mean : ndarray of shape (cluster, detector_y, detector_x)
        Corrected counts.
    cluster : ndarray of int, shape (scan_y, scan_x)
        Cluster of each position; -1: none.
    valid : ndarray of uint8, shape (detector_y, detector_x)
    acquisition : Acquisition
    crystals : list of Crystal
    params : Params
    matching : orientation.Params
    device : {"cpu", "cuda"}

    Raises
    ------
    InputError
        If the calibration is missing, no phase is given, or the detector holds no reflection of a phase.
    """
    size = np.bincount(cluster[cluster >= 0], minlength=len(mean))
    used = np.where((size >= params.fewest_positions)[:, None, None], mean, 0)  # dark patterns are not indexed
    cube = Cube(used[None].astype(np.float32), acquisition=replace(acquisition, scan_shape=None), valid=valid)
    found = orientation.indexed(cube, crystals, matching, device)
    told = {name: getattr(found, name) for name in TAKEN}
    phase = found.phase[0].astype(np.int32)
    axis, off = _zone_axes(found.orientation[0], phase, crystals)
    return Result(
        phase_name=found.phase_name,
        size_px=size.astype(np.int32),
        phase=phase,
        **{name: None if values is None else values[0] for name, values in told.items()},
        zone_axis=axis,
        zone_axis_off_deg=off,
        phase_map=np.where(cluster >= 0, phase[cluster], -1).astype(np.int32),
    )


def _zone_axes(quaternion, phase, crystals) -> tuple[np.ndarray, np.ndarray]:
    """Return the zone axis of small indices next to the beam (cluster, uvw), and how far it is off (cluster,)."""
    axis, off = np.zeros((len(phase), 3), np.int32), np.full(len(phase), np.nan, np.float32)
    small = product(range(-LARGEST_INDEX, LARGEST_INDEX + 1), repeat=3)
    uvw = np.array(sorted((v for v in small if gcd(*v) == 1), key=lambda v: (sum(map(abs, v)), [-i for i in v])))
    for c in np.flatnonzero(phase >= 0):
        along = uvw @ crystals[phase[c]].lattice
        beam = to_matrix(quaternion[c])[:, 2]
        cosine = along @ beam / np.linalg.norm(along, axis=1)
        best = int(np.argmax(np.round(cosine, 9)))
        axis[c], off[c] = uvw[best], np.rad2deg(np.arccos(np.clip(cosine[best], -1, 1)))
    return axis, off


COLUMNS = (
    *("cluster", "size_px", "phase", "w", "x", "y", "z", "zone_axis", "zone_axis_off_deg"),
    *("correlation", "second_correlation", "reliability", "phase_reliability", "ambiguous"),
)


def rows(result: Result) -> list[tuple]:
    """Return one row per cluster, as headed by `COLUMNS`; no name where it is not indexed."""
    nothing = np.full(len(result.phase), np.nan)
    columns = (
        range(len(result.phase)),
        result.size_px.tolist(),
        names(result),
        *result.orientation.T.tolist(),
        [axis_text(axis) for axis in result.zone_axis],
        result.zone_axis_off_deg.tolist(),
        result.correlation.tolist(),
        result.second_correlation.tolist(),
        result.reliability.tolist(),
        (nothing if result.phase_reliability is None else result.phase_reliability).tolist(),
        result.ambiguous.tolist(),
    )
    return list(zip(*columns, strict=True))


def axis_text(axis) -> str:
    """Return "[1 0 -1]" for a zone axis, "" for none."""
    return f"[{' '.join(map(str, axis))}]" if np.any(axis) else ""


def names(result: Result) -> list[str]:
    """Return the name of the phase of every cluster, "" where it is not indexed."""
    return ["" if k < 0 else result.phase_name[k] for k in result.phase]
