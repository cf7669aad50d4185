"""Settings, result and `compute` of non-local averaging.

Source: Yang, Pierron, Kacher, Rowenhorst, arXiv:2603.30018; Brewick, Wright, Rowenhorst, Ultramicroscopy 200,
50 (2019), doi 10.1016/j.ultramic.2019.02.013. With Z = √(I - min I), n the pixels of a disk,

    σ²_i = min over the 8 neighbours j of Σ (Z_i - Z_j)² / 2n
    d_ij = [Σ (Z_i - Z_j)² - n (σ²_i + σ²_j)] / [(σ²_i + σ²_j) √(2n)]
    w_ij = exp(-max(d_ij - d₀, 0) / λ²),  w_ii = 1,  normalised over the patterns that take part.

That is ``distance: pattern``. Patterns that differ by noise alone have d of about 1 to 6, not 0: a least of eight
estimates is low; λ makes up for that. ``distance: projection`` takes d in the few directions in which the patterns
of a scan differ by more than noise (see `projection`), which tells a thin lamella from its matrix at a dose at which
whole patterns do not.
"""

from dataclasses import dataclass

import numpy as np

from fourdstem.cube import Cube
from fourdstem.methods.nonlocal_average import everywhere, neighbours, projection, survey
from fourdstem.methods.nonlocal_average.source import most_compared, open_source
from fourdstem.methods.nonlocal_average.window import Likeness, average_window, rows_together
from fourdstem.schema import quantity, setting

TARGETS = (0.5, 0.34, 0.25)
FEW, NEARLY_ALL, ALONE_SHARE = 3.0, 0.95, 0.05  # when to warn
PROJECTION_SCALE = (1.0, 0.5)  # λ and d₀ in standard deviations of the noise of one pattern


@dataclass(frozen=True)
class Params:
    """Settings of non-local averaging."""

    search: str = setting(
        "window",
        "Where similar patterns are looked for: in a window around each position, or in the whole scan.",
        choices=("window", "global"),
    )
    distance: str = setting(
        "projection",
        "What tells how alike two patterns are: pattern, as published, compares them pixel by pixel; projection "
        "compares them in the few directions in which patterns of the scan differ by more than noise, and keeps thin "
        "lamellae.",
        choices=("projection", "pattern"),
    )
    window_half_width_px: int = setting(
        4, "Half width s of the search window in scan positions: (2s + 1)² patterns.", minimum=1, maximum=20
    )
    neighbours: int = setting(
        80, "Most similar patterns that a pattern is averaged with in the global search.", minimum=1, maximum=1000
    )
    average_in: str = setting(
        "counts",
        "Average the counts, which keeps them, or their square roots, as published, which deletes weak reflections.",
        choices=("counts", "sqrt"),
    )
    lambda_value: float | None = setting(
        None,
        "λ of the weights: larger averages more, and more unlike patterns; null chooses it by `self_weight_target` "
        "for the distance pattern and is 1 for projection.",
        above=0,
        maximum=1000,
    )
    self_weight_target: float = setting(
        0.34,
        "Mean weight of the pattern itself on 3 × 3 windows at which λ is chosen for the distance pattern; 0.5 "
        "averages less, 0.25 more.",
        above=0.12,
        below=1,
    )
    distance_offset: float | None = setting(
        None,
        "d₀: patterns closer than this get full weight; null is 0 for the distance pattern and 0.5 for projection.",
        minimum=0,
        maximum=1000,
    )
    transform: str = setting(
        "auto",
        "What makes the noise even before patterns are compared pixel by pixel: root, as published, is √(I - min I); "
        "anscombe knows gain, offset and readout noise; auto takes anscombe where there is readout noise.",
        choices=("auto", "root", "anscombe"),
    )
    mask_fraction: float = setting(
        0.98, "Radius of the disk of pixels that are compared, of half the detector's width.", above=0, maximum=1.5
    )
    mask_direct_beam: bool = setting(False, "Leave the direct beam out of the comparison.")
    seed: int = setting(0, "Seed of the search for neighbours in the whole scan.", minimum=0)


@dataclass(frozen=True)
class Result:
    """How far to trust each averaged pattern; the patterns themselves go to `out`."""

    effective_number: np.ndarray = quantity("scan_y scan_x", "", "effective number of patterns averaged")
    self_weight: np.ndarray = quantity("scan_y scan_x", "", "weight of the pattern itself")
    sigma: np.ndarray = quantity("scan_y scan_x", "√counts", "noise of the square root of the counts")
    members: np.ndarray = quantity("", "", "patterns that an average is made of at most")
    lambda_: np.ndarray = quantity("", "", "λ in force")
    target: np.ndarray = quantity("target", "", "self-weight on 3 × 3 windows, distance pattern")
    lambda_target: np.ndarray = quantity("target", "", "λ at which each target is met, distance pattern")
    valid: np.ndarray = quantity("detector_y detector_x", "", "1 where the averaged patterns mean something")
    eigenvalue: np.ndarray | None = quantity(
        "direction", "", "covariance of neighbours along each direction", default=None
    )
    rank: np.ndarray | None = quantity("", "", "directions in which patterns are compared", default=None)


@dataclass(frozen=True)
class Output:
    """Where averaged patterns go, and, if wanted, which patterns each was made of and by what weight.

    Attributes
    ----------
    patterns : array-like of shape (scan_y, scan_x, detector_y, detector_x)
        Assigned as ``patterns[y, x0:x1]`` with float32 counts, 0 where `Cube.valid` is 0.
    member, weight : array-like of shape (scan_y, scan_x, `members`), or None
        int32 ``y * scan_x + x`` of each pattern that takes part, -1 for none, and its float32 weight.
    """

    patterns: object
    member: object = None
    weight: object = None

    def write(self, y: int, x0: int, x1: int, counts, member, weight) -> None:
        """Store the averages of ``[y, x0:x1]``."""
        self.patterns[y, x0:x1] = counts
        if self.member is not None:
            self.member[y, x0:x1] = member
            self.weight[y, x0:x1] = weight


def members(params: Params, scan_shape: tuple[int, int]) -> int:
    """Return how many patterns at most an average is made of."""
    if params.search == "global":
        return params.neighbours + 1
    width = 2 * params.window_half_width_px + 1
    return min(width, scan_shape[0]) * min(width, scan_shape[1])


def compute(
    cube: Cube, params: Params, out, beam_radius_px: float | None = None, scratch=None, device: str = "cpu"
) -> Result:
    """Average each pattern with those of its search window, or of the whole scan, that are alike.

    Weights come from recorded counts: of whole-pixel shifts, so that the beams coincide (distance pattern), or
    summed into bins about the beam (distance projection). What is averaged are the corrected patterns, interpolated
    once. Interpolating first would correlate the noise and bias σ.

    Counts are kept nearly, not exactly: weights and averages come from the same noisy patterns, and among sparse
    ones those with fewer counts lie closer. On the simulated film with the distance pattern and λ = 1.7, averages
    fall short of the counts by 1.3 % at 270 counts per pattern, 0.4 % at 890 and 0.1 % at 2700.

    A pattern without a noise estimate (its neighbours are its duplicates, it has no neighbour) is left as it is by
    the distance pattern, and one without a beam by either: effective number 1, and it takes no part in the average
    of others.

    Parameters
    ----------
    cube : Cube
        Recorded counts with the correction to apply; without one, patterns are averaged as they are stored.
    params : Params
    out : Output, or array-like of shape (scan_y, scan_x, detector_y, detector_x)
        Filled with the averaged patterns.
    beam_radius_px : float, optional
        Width of the bins of the projection, and needed by `mask_direct_beam`; None or NaN takes the semi-angle of
        convergence.
    scratch : path-like, optional
        Folder for the temporary files of the global search; None takes the system's.
    device : {"cpu", "cuda"}
        Where the window search runs; the global search runs on the processor.

    Returns
    -------
    Result

    Raises
    ------
    InputError
        If the rows of a window need more than ``cube.memory_mb``, if no pixel is left to compare, if a pixel
        that is not marked bad is not finite, if `mask_direct_beam` is asked for and the radius of the beam is
        not known, if `transform` anscombe is asked for and the gain is not known, or if the disk is too full for
        the temporary files.
    """
    out = out if isinstance(out, Output) else Output(out)
    if beam_radius_px is not None and np.isnan(beam_radius_px):
        beam_radius_px = None  # not measured
    whole = params.distance == "pattern"
    if params.search == "window":
        rows = rows_together(cube, params, most_compared(cube, params) if whole else 0)
    source = open_source(cube, params, beam_radius_px)
    seen = survey.look(source)
    distances = seen.distances()
    scale, projected = _scale(params, distances), None
    if params.search == "global" or not whole:
        projected = projection.project(source, params, beam_radius_px)
    if params.search == "global":
        number, own = _everywhere(source, params, projected, seen.variance, scale, out, scratch)
    else:
        likeness = Likeness(source.n if whole else 0, scale, seen.variance, None if whole else projected)
        if device == "cpu":
            number, own = average_window(source, likeness, params, out, rows)
        else:
            from fourdstem.methods.nonlocal_average.on_device import average_window_on  # torch only where needed

            number, own = average_window_on(device, source, likeness, params, out)
    return Result(
        effective_number=number,
        self_weight=own,
        sigma=np.sqrt(seen.variance).astype(np.float32),
        members=np.array(members(params, cube.scan_shape)),
        lambda_=np.array(scale[0], np.float32),
        target=np.array(TARGETS, np.float32),
        lambda_target=survey.lambdas_for(distances, TARGETS, 0.0).astype(np.float32),
        eigenvalue=None if projected is None else projected.eigenvalues.astype(np.float32),
        rank=None if projected is None else np.array(projected.coordinates.shape[-1]),
        valid=np.asarray(cube.valid, np.uint8),
    )


def _everywhere(source, params: Params, projected, variance, scale, out: Output, scratch) -> np.ndarray:
    """Average every pattern with its nearest of the whole scan; return effective number and self-weight."""
    coordinates = projection.search_coordinates(projected)
    nearest = neighbours.nearest(coordinates, params.neighbours, params.seed, source.cube.threads)
    index = np.concatenate([np.arange(len(nearest), dtype=np.int32)[:, None], nearest], axis=1)
    weights = None if params.distance == "pattern" else projection.index_weights(projected, index, scale)
    return everywhere.average_everywhere(source, index, weights, variance, scale, out, scratch)


def _scale(params: Params, distances) -> tuple[float, float]:
    """Return λ and d₀ in force."""
    whole = params.distance == "pattern"
    offset = params.distance_offset
    if offset is None:
        offset = 0.0 if whole else PROJECTION_SCALE[1]
    if params.lambda_value is not None:
        return float(params.lambda_value), float(offset)
    if not whole:
        return PROJECTION_SCALE[0], float(offset)
    return float(survey.lambdas_for(distances, (params.self_weight_target,), offset)[0]), float(offset)


def doubts(result: Result) -> list[str]:
    """Return what a user should be told of an average that averaged nothing or everything."""
    number, most = np.asarray(result.effective_number, float), int(result.members)
    median, alone = float(np.median(number)), float((number <= 1.0).mean())
    told = []
    if alone > ALONE_SHARE:
        told.append(
            f"{alone:.0%} of the patterns are averaged with no other: they have no beam, are duplicates or constant, "
            "or are unlike all others"
        )
    if median < FEW:
        told.append(f"little is averaged: the median effective number is {median:.1f} of {most}; raise lambda_value")
    if most > 1 and median > NEARLY_ALL * most:
        told.append(
            f"nearly everything is averaged: the median effective number is {median:.1f} of {most}; unless the scan is "
            "of one grain, unlike patterns are mixed; lower lambda_value"
        )
    if most > number.size:
        told.append(f"{most - 1} neighbours are asked for, but the scan has {number.size} positions: all are taken")
    return told
