"""Comparison with known truth: the only place, after the simulation, that sees it.

The thresholds are settings with fixed defaults, the same for every source of patterns. Success is stated as a
share of all positions and of the *identifiable* ones: those whose noise-free pattern the same matcher indexes
rightly and for which no other orientation fits equally well.
"""

from dataclasses import dataclass, field, replace
from itertools import product

import numpy as np
from scipy.ndimage import distance_transform_edt

from fourdstem.cube import Cube
from fourdstem.methods.orientation import misorientation_deg
from fourdstem.schema import quantity, setting

NOISE_FREE = "noise_free"


@dataclass(frozen=True)
class Params:
    """Thresholds of success, fixed before any result was seen."""

    within_deg: tuple[float, ...] = setting(
        (2.0, 5.0), "Success means a misorientation from the truth below each of these.", above=0, maximum=180
    )
    boundary_distance_px: float = setting(
        2.0, "Positions at most this far from another grain count as boundary.", minimum=0, maximum=1000
    )
    twin_fraction: float = setting(
        0.75, "Positions with at least this share of the lamella count as twin.", above=0, maximum=1
    )
    identifiable_deg: float = setting(
        3.0, "A position is identifiable if only orientations this close to the truth fit best.", above=0, maximum=180
    )
    identifiable_correlation: float = setting(
        0.01, "A candidate fits equally well if its correlation is within this of the best.", minimum=0, maximum=1
    )
    box_half_widths_px: tuple[int, ...] = setting(
        (1, 4), "Half-widths of the box averages that are compared: 1 is 3×3, 4 is 9×9.", minimum=0, maximum=100
    )


@dataclass(frozen=True)
class Result:
    """How far each source of patterns is from the truth.

    The table has one row per ``row_*`` entry; `rows` puts them together.
    """

    source: tuple = quantity("source", "", "source of patterns")
    misorientation_deg: np.ndarray = quantity("source scan_y scan_x", "°", "misorientation from the truth")
    centre_error_px: np.ndarray | None = quantity("scan_y scan_x", "px", "distance from the true beam position")
    identifiable: np.ndarray | None = quantity("scan_y scan_x", "", "noise-free pattern has one best orientation")
    region: tuple = quantity("region", "", "name of a region")
    region_mask: np.ndarray = quantity("region scan_y scan_x", "", "positions of a region")
    row_source: tuple = quantity("row", "", "source of a row of the table")
    row_region: tuple = quantity("row", "", "region of a row of the table")
    row_metric: tuple = quantity("row", "", "metric of a row of the table")
    row_value: np.ndarray = quantity("row", "", "value of a row of the table")
    row_unit: tuple = quantity("row", "", "unit of a row of the table")


def compute(truth, indexed: dict, crystals, params: Params, centre_px: np.ndarray | None = None) -> Result:
    """Compare indexed orientations with the truth.

    Parameters
    ----------
    truth : simulate.Result or alike
        Needs ``orientation`` and ``phase``; uses ``grain``, ``grain_fraction``, ``twin_grain``, ``bent``,
        ``reference`` and ``centre_px`` where they are not None.
    indexed : dict of str to orientation.Result
        By source; the source "noise_free" defines which positions are identifiable.
    crystals : list of Crystal
        In the order of the phase index.
    params : Params
    centre_px : ndarray of shape (scan_y, scan_x, 2), optional
        Beam positions found by preprocessing.

    Returns
    -------
    Result
        A misorientation is NaN where a position was not indexed or was given the wrong phase.
    """
    apart = {name: _misorientation(truth, result, crystals) for name, result in indexed.items()}
    identifiable = None
    if NOISE_FREE in indexed:
        identifiable = _identifiable(truth, indexed[NOISE_FREE], apart[NOISE_FREE], crystals, params)
    masks = regions(truth, params)
    table = _centre_rows(truth, centre_px) + _table(indexed, apart, masks, identifiable, params)
    columns = list(zip(*table, strict=True)) if table else [()] * 5
    return Result(
        source=tuple(indexed),
        misorientation_deg=np.stack([apart[name] for name in indexed]).astype(np.float32),
        centre_error_px=_centre_error(truth, centre_px),
        identifiable=None if identifiable is None else identifiable.astype(np.uint8),
        region=tuple(masks),
        region_mask=np.stack(list(masks.values())).astype(np.uint8),
        row_source=columns[0],
        row_region=columns[1],
        row_metric=columns[2],
        row_value=np.array(columns[3], float),
        row_unit=columns[4],
    )


def rows(result: Result) -> list[tuple[str, str, str, float, str]]:
    """Return the table as rows (source, region, metric, value, unit)."""
    columns = (result.row_source, result.row_region, result.row_metric, result.row_value.tolist(), result.row_unit)
    return list(zip(*columns, strict=True))


def regions(truth, params: Params) -> dict[str, np.ndarray]:
    """Return the regions that the truth allows, each a bool map (scan_y, scan_x); empty ones are left out.

    "interior" lies farther than ``boundary_distance_px`` from every position of another grain, "boundary" does
    not; "twin", "bent" and "reference" are what the simulated film holds.
    """
    known = np.asarray(truth.phase) >= 0
    found = {"all": known}
    if truth.grain is not None:
        inside = _depth_px(np.asarray(truth.grain)) > params.boundary_distance_px
        found |= {"interior": known & inside, "boundary": known & ~inside}
    if truth.grain_fraction is not None and truth.twin_grain is not None:
        found["twin"] = known & (truth.grain_fraction[..., int(truth.twin_grain)] >= params.twin_fraction)
    for name in ("bent", "reference"):
        if getattr(truth, name) is not None:
            found[name] = known & (np.asarray(getattr(truth, name)) > 0)
    return {name: mask for name, mask in found.items() if mask.any()}


@dataclass(frozen=True)
class BoxAverage:
    """Patterns averaged over a square of positions, truncated at the edges of the scan; ``data`` of a `Cube`.

    The rival of non-local averaging that asks nothing of the patterns. Reads from several threads at once are
    not supported; `Cube.map_units` makes none.

    Attributes
    ----------
    cube : Cube
        Corrected patterns.
    half_width_px : int
        1 averages 3×3 positions, 4 averages 9×9.
    rows : dict
        Corrected rows that will be asked for again, as far as a quarter of the cube's memory reaches.
    """

    cube: Cube
    half_width_px: int
    rows: dict = field(default_factory=dict, repr=False, compare=False)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(scan_y, scan_x, detector_y, detector_x)."""
        return self.cube.shape

    def __getitem__(self, where) -> np.ndarray:
        """Return the float32 patterns (n, detector_y, detector_x) at ``[y, x0:x1]``."""
        y, xs = where
        x0, x1, _ = xs.indices(self.shape[1])
        h = self.half_width_px
        left, right = max(x0 - h, 0), min(x1 + h, self.shape[1])
        near = range(max(y - h, 0), min(y + h + 1, self.shape[0]))
        column = np.zeros((right - left, *self.shape[2:]))
        for row in near:
            column += self._row(row, left, right, near)
        out = np.empty((x1 - x0, *self.shape[2:]), np.float32)
        for i, x in enumerate(range(x0, x1)):
            low, high = max(x - h, 0) - left, min(x + h + 1, self.shape[1]) - left
            out[i] = column[low:high].sum(axis=0) / (len(near) * (high - low))
        return out

    def _row(self, y: int, x0: int, x1: int, near: range) -> np.ndarray:
        row_mb = float(np.prod(self.shape[1:])) * 4 / 2**20
        if row_mb * (2 * self.half_width_px + 1) > self.cube.memory_mb / 4:
            return _read(self.cube, y, x0, x1)
        for old in [row for row in self.rows if row not in near]:
            del self.rows[old]
        if y not in self.rows:
            self.rows[y] = np.asarray(_read(self.cube, y, 0, self.shape[1]), np.float32)
        return self.rows[y][x0:x1]


def box_average(cube: Cube, half_width_px: int) -> Cube:
    """Return a cube whose patterns are box averages of a corrected cube."""
    return replace(cube, data=BoxAverage(cube, half_width_px), correction=None, valid=cube.valid)


def box_name(half_width_px: int) -> str:
    """Return the source name of a box average: "box_3x3" for a half-width of 1."""
    width = 2 * half_width_px + 1
    return f"box_{width}x{width}"


def noise_free(cube: Cube, expected) -> Cube:
    """Return a cube of noise-free patterns that is otherwise like a corrected cube.

    Parameters
    ----------
    cube : Cube
    expected : array-like of shape (scan_y, scan_x, detector_y, detector_x)
        From ``simulate.expected``.
    """
    return replace(cube, data=expected, correction=None, valid=cube.valid)


def _read(cube: Cube, y: int, x0: int, x1: int) -> np.ndarray:
    stored = cube.data[y, x0:x1]
    return stored if cube.correction is None else cube.correction.apply(stored, (y, slice(x0, x1)))


def _misorientation(truth, result, crystals) -> np.ndarray:
    """Return the angle between truth and result, °; NaN where not indexed or of another phase."""
    angle = np.full(result.phase.shape, np.nan)
    for phase, crystal in enumerate(crystals):
        both = (np.asarray(truth.phase) == phase) & (result.phase == phase)
        if both.any():
            angle[both] = misorientation_deg(truth.orientation[both], result.orientation[both], crystal)
    return angle


def _identifiable(truth, result, apart, crystals, params: Params) -> np.ndarray:
    """Tell where the noise-free pattern is indexed rightly and nothing else fits as well."""
    right = np.nan_to_num(apart, nan=np.inf) <= params.identifiable_deg
    candidates = result.candidate_correlation.shape[-1]
    rival = result.candidate_correlation >= result.correlation[..., None] - params.identifiable_correlation
    rival &= result.candidate_phase >= 0
    for i in range(candidates):
        for phase, crystal in enumerate(crystals):
            same = right & rival[..., i] & (truth.phase == phase)
            right[same & (result.candidate_phase[..., i] != phase)] = False
            same &= result.candidate_phase[..., i] == phase
            if same.any():
                angle = misorientation_deg(
                    truth.orientation[same], result.candidate_orientation[..., i, :][same], crystal
                )
                right[same] = angle <= params.identifiable_deg
    return right


def _rates(apart, indexed, mask, params: Params, prefix: str) -> list[tuple[str, float, str]]:
    """Return (metric, value, unit) over a mask; a position that is not indexed is a failure of every share."""
    if not mask.any():
        return []
    angle = np.nan_to_num(apart[mask], nan=np.inf)
    out = [(f"{prefix}positions", float(mask.sum()), ""), (f"{prefix}indexed", float(indexed[mask].mean()), "share")]
    out += [(f"{prefix}within_{limit:g}_deg", float((angle <= limit).mean()), "share") for limit in params.within_deg]
    if np.isfinite(angle).any():
        out.append((f"{prefix}median_misorientation", float(np.median(angle[np.isfinite(angle)])), "°"))
    return out


def _table(indexed, apart, masks, identifiable, params: Params) -> list[tuple]:
    """Return the rows of every source and region, of all positions and of the identifiable ones."""
    table = []
    for (name, result), (region, mask) in product(indexed.items(), masks.items()):
        found = _rates(apart[name], result.phase >= 0, mask, params, "")
        if identifiable is not None:
            found += _rates(apart[name], result.phase >= 0, mask & identifiable, params, "identifiable_")
        table += [(name, region, *row) for row in found]
    if identifiable is not None:
        table += _relative(table)
        table += [(NOISE_FREE, r, "identifiable", float(identifiable[m].mean()), "share") for r, m in masks.items()]
    return table


def _relative(table) -> list[tuple]:
    """Return every share of identifiable positions over that of the noise-free patterns."""
    best = {(region, metric): value for source, region, metric, value, _ in table if source == NOISE_FREE}
    return [
        (source, region, f"{metric}_of_noise_free", value / best[region, metric], "ratio")
        for source, region, metric, value, unit in table
        if metric.startswith("identifiable_within") and source != NOISE_FREE and best.get((region, metric))
    ]


def _centre_error(truth, centre_px) -> np.ndarray | None:
    if centre_px is None or truth.centre_px is None:
        return None
    return np.linalg.norm(np.asarray(centre_px, float) - truth.centre_px, axis=-1).astype(np.float32)


def _centre_rows(truth, centre_px) -> list[tuple]:
    error = _centre_error(truth, centre_px)
    if error is None or not np.isfinite(error).any():
        return []
    found = error[np.isfinite(error)].astype(float)
    return [
        ("preprocess", "all", "centre_error_median", float(np.median(found)), "px"),
        ("preprocess", "all", "centre_error_95_percent", float(np.percentile(found, 95)), "px"),
    ]


def _depth_px(grain: np.ndarray) -> np.ndarray:
    """Return the distance from each position to the nearest one of another grain; infinite if there is none."""
    depth = np.full(grain.shape, np.inf)
    if np.ptp(grain) > 0:
        for label in np.unique(grain):
            own = grain == label
            depth[own] = distance_transform_edt(own)[own]
    return depth
