"""From an orientation map to grains, boundaries, local misorientation, a cleaned map and texture.

Everything is derived from the map as it was indexed, and nothing of that map is overwritten: the mean
orientations of grains and the cleaned map are maps of their own.
"""

from dataclasses import dataclass

import numpy as np

from fourdstem.methods.grains.boundaries import boundaries
from fourdstem.methods.grains.clean import clean
from fourdstem.methods.grains.local import kernel_average, noise_floor
from fourdstem.methods.grains.segments import Map, average, describe, find_grains, neighbours
from fourdstem.methods.grains.texture import texture
from fourdstem.schema import quantity, setting


@dataclass(frozen=True)
class Params:
    """Settings of grains, boundaries and texture."""

    threshold_deg: float = setting(
        5.0, "Neighbours of one phase that differ by more are separated by a boundary.", above=0, maximum=60
    )
    minimum_px: int = setting(4, "Smallest grain, in scan positions.", minimum=1, maximum=10000)
    minimum_reliability: float = setting(
        0.0, "Positions of lower reliability belong to no grain.", minimum=0, maximum=100
    )
    clean_neighbours: int = setting(
        4,
        "Clean-up gives a position without a grain to the grain that holds at least so many of its 8 neighbours; from "
        "4 on a straight edge does not grow into what is empty.",
        minimum=1,
        maximum=8,
    )
    clean_rounds: int = setting(10, "Clean-up ends after so many rounds at the latest.", minimum=0, maximum=1000)
    noise_draws: int = setting(
        25, "Simulated maps of orientation noise, from which the noise floor is taken.", minimum=10, maximum=1000
    )
    kernel_deg: float = setting(
        10.0, "Half width of the kernel of orientation densities and pole figures.", minimum=5, maximum=45
    )
    seed: int = setting(0, "Seed of the simulated noise and of random texture.", minimum=0)


@dataclass(frozen=True)
class Indexed:
    """What is read of an orientation map."""

    orientation: np.ndarray = quantity("scan_y scan_x quaternion", "", "Orientation (lab to crystal)")
    phase: np.ndarray = quantity("scan_y scan_x", "", "Phase")
    correlation: np.ndarray = quantity("scan_y scan_x", "", "Correlation with the best template")
    reliability: np.ndarray = quantity("scan_y scan_x", "", "Reliability")


@dataclass(frozen=True)
class Result:
    """Maps, a table of grains, a list of boundary segments, classes of boundaries, and texture by phase."""

    source: str = quantity("", "", "Source of the patterns whose orientations these are")
    phase_name: tuple[str, ...] = quantity("phase", "", "Names of the phases")
    grain: np.ndarray = quantity("scan_y scan_x", "", "Grain; -1: not indexed, or fewer positions than a grain has")
    segment: np.ndarray = quantity("scan_y scan_x", "", "Connected region of any size; -1: not indexed")
    orientation_mean: np.ndarray = quantity("scan_y scan_x quaternion", "", "Mean orientation of the grain")
    grod_deg: np.ndarray = quantity("scan_y scan_x", "°", "Misorientation from the mean of the grain")
    kam_deg: np.ndarray = quantity(
        "scan_y scan_x", "°", "Kernel average misorientation (first neighbours); NaN at or below the noise floor"
    )
    kam_measured_deg: np.ndarray = quantity("scan_y scan_x", "°", "Kernel average misorientation, noise included")
    kam_floor_deg: np.ndarray = quantity("scan_y scan_x", "°", "Noise floor: simulated noise alone stays below at 95 %")
    orientation_clean: np.ndarray = quantity("scan_y scan_x quaternion", "", "Orientation after clean-up")
    phase_clean: np.ndarray = quantity("scan_y scan_x", "", "Phase after clean-up")
    grain_clean: np.ndarray = quantity("scan_y scan_x", "", "Grain after clean-up")
    changed: np.ndarray = quantity("scan_y scan_x", "", "Clean-up: 0 as indexed, 1 filled, 2 replaced")
    grain_phase: np.ndarray = quantity("grain", "", "Phase")
    grain_size_px: np.ndarray = quantity("grain", "px", "Scan positions")
    grain_area_nm2: np.ndarray = quantity("grain", "nm²", "Area")
    grain_diameter_nm: np.ndarray = quantity("grain", "nm", "Diameter of the circle of equal area")
    grain_centroid_px: np.ndarray = quantity("grain yx", "px", "Centroid (y, x)")
    grain_orientation: np.ndarray = quantity("grain quaternion", "", "Mean orientation")
    grain_spread_deg: np.ndarray = quantity("grain", "°", "Mean misorientation from the mean (GOS)")
    grain_kam_floor_deg: np.ndarray = quantity("grain", "°", "Mean noise floor")
    grain_correlation: np.ndarray = quantity("grain", "", "Mean correlation")
    grain_reliability: np.ndarray = quantity("grain", "", "Mean reliability")
    grain_on_edge: np.ndarray = quantity("grain", "", "Touches the edge of the scan")
    grain_aspect_ratio: np.ndarray = quantity("grain", "", "Long by short axis of the ellipse of equal moments")
    boundary_position_px: np.ndarray = quantity("boundary yx", "px", "Middle of a segment (y, x)")
    boundary_grain: np.ndarray = quantity("boundary side", "", "Grains on both sides")
    boundary_angle_deg: np.ndarray = quantity("boundary", "°", "Smallest misorientation; NaN between phases")
    boundary_axis: np.ndarray = quantity("boundary xyz", "", "Its axis, crystal axes, in the fundamental sector")
    boundary_class: np.ndarray = quantity("boundary", "", "Row of the table of classes")
    class_name: tuple[str, ...] = quantity("class", "", "Class of boundary (Σ by Brandon's criterion)")
    class_phase: np.ndarray = quantity("class", "", "Phase on both sides; -1: different ones")
    class_segments: np.ndarray = quantity("class", "", "Segments between positions")
    class_length_nm: np.ndarray = quantity("class", "nm", "Length along the edges of positions")
    class_share: np.ndarray = quantity("class", "share", "Share of the length within the phase")
    class_random_share: np.ndarray = quantity("class", "share", "Share among random misorientations")
    pole_direction: np.ndarray = quantity("direction xyz", "", "Directions of all pole figures, unit vectors, z >= 0")
    pole_hkl: np.ndarray = quantity("phase pole index", "", "Reflecting planes of the pole figures")
    pole_density: np.ndarray = quantity("phase pole direction", "", "Pole density in the lab, multiples of random")
    inverse_pole_density: np.ndarray = quantity(
        "phase lab_axis direction", "", "Density of lab z, x, y in the axes of the Laue group, multiples of random"
    )
    texture_index: np.ndarray = quantity("phase", "", "Texture index of the density of grains, weighted by area")
    texture_index_random: np.ndarray = quantity("phase", "", "The same for random grains of these areas, expected")
    texture_index_random_sigma: np.ndarray = quantity("phase", "", "Standard deviation of that")
    effective_grains: np.ndarray = quantity("phase", "", "(Sum of areas)² by sum of squared areas")


def compute(indexed, crystals, params: Params, *, source: str, scan_step=None, made_of=None) -> Result:
    """Find grains and what follows from them.

    Parameters
    ----------
    indexed : Indexed or orientation.Result
    crystals : list of Crystal
        In the order of ``indexed.phase``.
    params : Params
    source : str
        Of the patterns; recorded, because local misorientation means nothing without it.
    scan_step : tuple of float, optional
        Å along scan_y and scan_x; without it, areas and lengths are NaN.
    made_of : tuple of (member, weight), optional
        For averaged patterns, what each was made of, both of shape (scan_y, scan_x, k); -1 is no member. Neighbours
        then share noise, see `local.noise_floor`.

    Returns
    -------
    Result
    """
    step_nm = (np.nan, np.nan) if scan_step is None else tuple(s / 10 for s in scan_step)
    here = Map(indexed, crystals, params.minimum_reliability)
    pairs = neighbours(here)
    segment, grain = find_grains(here, pairs, params.threshold_deg, params.minimum_px)
    mean, aligned, away = average(here, grain)
    kam = kernel_average(here, pairs, grain, params.threshold_deg)
    floor = noise_floor(here, pairs, grain, mean, aligned, params, made_of)
    table = describe(here, grain, mean, away, floor, step_nm)
    per_pixel = np.full((grain.size, 4), np.nan, np.float32)
    per_pixel[grain >= 0] = mean[grain[grain >= 0]]
    shape = here.shape
    with np.errstate(invalid="ignore"):
        above = kam > floor
    return Result(
        source=source,
        phase_name=tuple(crystal.name for crystal in crystals),
        grain=grain.reshape(shape),
        segment=segment.reshape(shape),
        orientation_mean=per_pixel.reshape(*shape, 4),
        grod_deg=away.reshape(shape).astype(np.float32),
        kam_deg=np.where(above, kam, np.nan).reshape(shape).astype(np.float32),
        kam_measured_deg=kam.reshape(shape).astype(np.float32),
        kam_floor_deg=floor.reshape(shape).astype(np.float32),
        **clean(here, grain, params.clean_neighbours, params.clean_rounds),
        **table,
        **boundaries(here, pairs, grain, step_nm, np.random.default_rng(params.seed)),
        **texture(here, grain, table, params.kernel_deg, np.random.default_rng(params.seed)),
    )
