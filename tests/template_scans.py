"""Scans for the tests of template masks: pure noise, a lattice of columns, and a simulated crystal."""

import functools

import numpy as np

from fourdstem import crystal
from fourdstem.calibration import Acquisition
from fourdstem.cube import Correction, Cube
from fourdstem.methods import simulate, template_mask
from fourdstem.methods.template_mask import classical, masks, results, scene, stream
from fourdstem.methods.template_mask.sites import gaussians
from fourdstem.schema import build

STEP = (0.25, 0.25)
RADIUS = 5.0  # of the bright disk in the scans that are drawn here, px


def cube_of(counts, gain=1.0, offset=0.0, surface=None, bad=None, step=STEP, **options) -> Cube:
    """Counts as `io.open_recorded` hands them out."""
    detector = counts.shape[2:]
    middle = (np.array(detector) - 1) / 2
    centre = np.broadcast_to(middle, (*counts.shape[:2], 2)) if surface is None else surface
    bad = np.zeros(detector, bool) if bad is None else bad
    correction = Correction(centre, np.eye(2), bad, offset, gain)
    return Cube(counts, acquisition=Acquisition(scan_step_angstrom=step), correction=correction, **options)


def settings(**given) -> template_mask.Params:
    """Settings as the configuration gives them; ``templates`` a list of blocks."""
    given = {"templates": [{"species": "A", "file": "a.npy"}], **given}
    return build(template_mask.Params, given)


def compute(cube, params=None, pictures=None, **options) -> template_mask.Result:
    """The whole stage on a scan of these columns."""
    pictures = {"A": picture(cube.scan_shape)} if pictures is None else pictures
    return template_mask.compute(cube, params or settings(), RADIUS, pictures=pictures, **options)


def laid_out(cube, params, radius, crystals=None) -> scene.Scene:
    """Templates, decoys and regions of a scan, to be shared by scans that differ in their noise alone."""
    step = np.array(cube.acquisition.scan_step_angstrom)
    shown = classical.make(stream.open_source(cube), radius, step)
    return scene.make(params, shown, step, crystals or {}, {"A": picture(cube.scan_shape)}, {})


def told(shared: scene.Scene, cube, radius) -> list[results.Found]:
    """What the stage says of each species, without the rest of its results."""
    source = stream.open_source(cube)
    learning = masks.gathering(source, shared.question, np.zeros(cube.scan_shape, int))
    stream.run(learning)
    fitted = template_mask._images(shared, source, radius, {}, learning)
    variance = results.variance_of(source, fitted)
    return results.judged(shared, fitted.images.fair, variance, results.cores_of(shared, cube.scan_shape))


def columns(shape, spacing=8.0, start=4.0):
    """Places of a square lattice of columns, px."""
    y, x = (np.arange(start, n, spacing) for n in shape)
    return np.stack(np.meshgrid(y, x, indexing="ij"), -1).reshape(-1, 2)


def picture(shape, spacing=8.0, start=4.0):
    """A square lattice of Gaussians."""
    return gaussians(columns(shape, spacing, start), 0.35, shape, STEP)


def noise(shape, detector, rng, mean=2.0):
    """Poisson counts without any specimen: a bright disk."""
    return rng.poisson(np.broadcast_to(disk(detector) * mean + 0.05, (*shape, *detector))).astype(np.uint16)


def disk(detector):
    y, x = (np.arange(n) - (n - 1) / 2 for n in detector)
    return (np.hypot(y[:, None], x) <= RADIUS).astype(float)


def specimen(shape, detector, rng, strength=0.1, mean=2.0, where=None, spacing=8.0, start=4.0):
    """Columns that darken the inner half of the disk and brighten the rest, where ``where`` is True."""
    y, x = (np.arange(n) - (n - 1) / 2 for n in detector)
    effect = np.where(np.hypot(y[:, None], x) <= 0.7 * RADIUS, 1.0, -1.0) * disk(detector)
    seen = picture(shape, spacing, start) * (1.0 if where is None else where)
    expected = mean * (disk(detector) + strength * seen[..., None, None] * effect) + 0.05
    return rng.poisson(expected).astype(np.uint16)


OLIVINE = "config/cif/LiFePO4.cif"


def simulation(**given) -> simulate.Params:
    """Settings of a small LiFePO4 scan along [010], lithium missing on the right."""
    values = {
        "specimen": "atomic", "seed": 101, "scan_shape": (44, 108), "scan_step_angstrom": (0.27, 0.27),
        "detector_shape": (32, 32), "detector_pixel_inv_angstrom": 0.1, "convergence_mrad": 25.0,
        "zone_axis": (0, 1, 0), "crystal_rotation_deg": 7.0, "vacancy_element": "Li", "vacancy_share": 0.5,
        "thickness_angstrom": (50.0, 50.0), "electrons_per_pattern": 2e6, "g_max_inv_angstrom": 1.5,
        "precession_mrad": 0.0, "ellipse_ratio": 1.0, "ellipse_angle_deg": 0.0, "descan_px": 0.05,
        "hot_pixels": 0, "dead_pixels": 0, "diffuse_width_inv_angstrom": 0.5,
    }  # fmt: skip
    return build(simulate.Params, {**values, **given})


@functools.cache
def olivine():
    """LiFePO4."""
    return crystal.read_cif(OLIVINE, "LiFePO4")


@functools.cache
def atomic(displaced: bool = False):
    """Counts of the small scan with hardly any noise, its truth and its settings."""
    more = {"displaced_element": "O", "displacement_angstrom": (0.1, 0.0)} if displaced else {}
    params = simulation(**more)
    counts = np.zeros((*params.scan_shape, *params.detector_shape), np.uint16)
    truth = simulate.compute(params, [olivine()], counts, threads=2)
    return counts, truth, params


def recorded(counts, truth, params, electrons: float, seed: int) -> Cube:
    """The small scan at a lower dose."""
    share = electrons / params.electrons_per_pattern
    drawn = np.random.default_rng(seed).poisson(counts * share).astype(np.uint16)
    return cube_of(drawn, surface=truth.centre_px.astype(float), step=params.scan_step_angstrom)
