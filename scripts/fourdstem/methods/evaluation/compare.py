"""Comparison with known truth: the only place, after the simulation, that sees it.

The thresholds are settings with fixed defaults, the same for every source of patterns. Success is stated as a
share of all positions and of the *identifiable* ones: those whose noise-free pattern the same matcher indexes
rightly and for which no other orientation fits equally well.
"""

from dataclasses import dataclass
from itertools import product

import numpy as np
from scipy.ndimage import distance_transform_edt

from fourdstem.methods.evaluation.probabilities import probability_rows
from fourdstem.methods.evaluation.quality import effective_number, foreign_weight
from fourdstem.methods.evaluation.rivals import NOISE_FREE, NONLOCAL, OVER_POSITIONS
from fourdstem.methods.orientation import misorientation_deg
from fourdstem.schema import quantity, setting


@dataclass(frozen=True)
class Params:
    """Thresholds of success, fixed before any result was seen."""

    within_deg: tuple[float, ...] = setting(
        (2.0, 5.0),
        "Success means a misorientation from the truth below each of these.",
        above=0,
        maximum=180,
        fewest=1,
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
    compared: tuple[str, ...] = setting(
        ("box_3x3", "box_9x9"),
        "Averages that are made and indexed beside the configured sources: over a box of positions, over a Gaussian "
        "(σ in scan steps), and non-local ones by search and distance (`window_sqrt`: distance pattern, square roots "
        "averaged), each with default settings.",
        choices=(*OVER_POSITIONS, *NONLOCAL),
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
    foreign_weight: np.ndarray | None = quantity(
        "scan_y scan_x",
        "",
        "share of weight from beyond the boundary of the grain, in the averaged patterns",
        default=None,
    )


def compute(
    truth,
    indexed: dict,
    crystals,
    params: Params,
    centre_px=None,
    psnr_db: dict | None = None,
    made_of: dict | None = None,
) -> Result:
    """Compare indexed orientations with the truth.

    Parameters
    ----------
    truth : simulate.Result or alike
        Needs ``orientation`` and ``phase``; uses ``grain``, ``grain_fraction``, ``twin_grain``, ``bent``,
        ``reference``, ``centre_px``, ``recorded_electrons`` and ``scattered_electrons`` where they are not None.
    indexed : dict of str to orientation.Result
        By source; the source "noise_free" defines which positions are identifiable.
    crystals : list of Crystal
        In the order of the phase index.
    params : Params
    centre_px : ndarray of shape (scan_y, scan_x, 2), optional
        Beam positions found by preprocessing.
    psnr_db : dict of str to ndarray of shape (scan_y, scan_x), optional
        By source, from `quality.psnr`.
    made_of : dict of str to (member, weight), optional
        By non-local average: what each pattern was made of, both of shape (scan_y, scan_x, k), see
        `quality.foreign_weight`.

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
    foreign = {} if truth.grain is None else {n: foreign_weight(truth.grain, *m) for n, m in (made_of or {}).items()}
    table = _centre_rows(truth, centre_px) + _table(indexed, apart, masks, identifiable, params)
    table += _mean_rows(_averaged_maps(truth, psnr_db or {}, made_of or {}, foreign), masks)
    table += probability_rows(truth, indexed, crystals, masks)
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
        foreign_weight=foreign.get("averaged"),
    )


def rows(result: Result) -> list[tuple[str, str, str, float, str]]:
    """Return the table as rows (source, region, metric, value, unit)."""
    columns = (result.row_source, result.row_region, result.row_metric, result.row_value.tolist(), result.row_unit)
    return list(zip(*columns, strict=True))


def regions(truth, params: Params) -> dict[str, np.ndarray]:
    """Return the regions that the truth allows, each a bool map (scan_y, scan_x); empty ones are left out.

    "interior" lies farther than ``boundary_distance_px`` from every position of another grain, "boundary" does
    not; "twin", "bent" and "reference" are what the simulated film holds, "bent_interior" and "reference_interior"
    can be compared although the grains differ in size.
    """
    known = np.asarray(truth.phase) >= 0
    found, inside = {"all": known}, None
    if truth.grain is not None:
        inside = _depth_px(np.asarray(truth.grain)) > params.boundary_distance_px
        found |= {"interior": known & inside, "boundary": known & ~inside}
    if truth.grain_fraction is not None and truth.twin_grain is not None:
        found["twin"] = known & (truth.grain_fraction[..., int(truth.twin_grain)] >= params.twin_fraction)
    for name in ("bent", "reference"):
        if getattr(truth, name) is not None:
            found[name] = known & (np.asarray(getattr(truth, name)) > 0)
            if inside is not None:
                found[f"{name}_interior"] = found[name] & inside
    return {name: mask for name, mask in found.items() if mask.any()}


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


def _averaged_maps(truth, psnr_db: dict, made_of: dict, foreign: dict) -> list[tuple]:
    """Return (source, metric, map, unit) of all whose mean over a region is a row of the table."""
    doses = {name: getattr(truth, name, None) for name in ("recorded_electrons", "scattered_electrons")}
    found = [("truth", name, values, "electrons") for name, values in doses.items() if values is not None]
    found += [(name, "psnr", values, "dB") for name, values in psnr_db.items()]
    found += [(name, "effective_number", effective_number(weight), "") for name, (_, weight) in made_of.items()]
    return found + [(name, "own_weight", 1 - values, "share") for name, values in foreign.items()]


def _mean_rows(maps: list[tuple], masks: dict) -> list[tuple]:
    """Return the mean of every map over every region; what is not finite is left out."""
    table = []
    for (source, metric, values, unit), (region, mask) in product(maps, masks.items()):
        inside = np.asarray(values, float)[mask]
        inside = inside[np.isfinite(inside)]
        if inside.size:
            table.append((source, region, metric, float(inside.mean()), unit))
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
