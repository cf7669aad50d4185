"""Template-derived masks: apply an image to get a mask, apply the mask to get the image optimised for it.

Xie et al., Commun. Mater. 7, 124 (2026), doi:10.1038/s43246-026-01134-9; re-implemented from the equations. Three ways
in which the method fools its user are guarded: shot noise, by images in which no position speaks for itself;
periodicity, by the same templates at empty and wrong sites; positions that follow the template, by shifting it.
"""

from dataclasses import replace

import numpy as np

from fourdstem.calibration import Acquisition
from fourdstem.cube import Cube
from fourdstem.errors import InputError
from fourdstem.geometry import corrected_to_recorded
from fourdstem.methods.template_mask import claims, classical, masks, polarisation, results, scene, stream, templates
from fourdstem.methods.template_mask.polarisation import TABLE_NAMES, table_rows
from fourdstem.methods.template_mask.results import COLUMN_NAMES, Fitted, column_rows
from fourdstem.methods.template_mask.scene import Scene
from fourdstem.methods.template_mask.settings import Params, Polarisation, Result, Template

__all__ = [
    "COLUMN_NAMES", "TABLE_NAMES", "Params", "Polarisation", "Result", "Template", "column_rows", "compute", "mask_of",
    "summary", "table_rows",
]  # fmt: skip

ONE_ELECTRON = 0.1  # by how much the gain may differ from 1 where counts are split like electrons
FEWEST_POSITIONS = 64
RADIUS_DIFFERS = 0.2  # share by which the measured radius of the bright disk may differ from the stated one


def compute(
    cube: Cube,
    params: Params,
    beam_radius_px: float,
    crystals: dict | None = None,
    pictures: dict | None = None,
    learned: dict | None = None,
) -> Result:
    """Learn masks from templates and image the scan with them, with everything that tells how far to believe it.

    Parameters
    ----------
    cube : Cube
        Counts as recorded; its correction holds the descan surface, bad pixels, offset and gain.
    params : Params
    beam_radius_px : float
        Radius of the bright disk as measured; where what is stated of the recording contradicts it, that is taken.
    crystals : dict, optional
        ``{phase: Crystal}``.
    pictures : dict, optional
        ``{species: array (scan_y, scan_x)}`` of templates from files.
    learned : dict, optional
        ``{species: mask (detector_y, detector_x)}`` learned from another sample.

    Returns
    -------
    Result

    Raises
    ------
    InputError
        If templates, CIF or scan do not fit each other, or counts cannot be split.
    """
    polarisation.read(params)
    step = _step(cube)
    plain = replace(stream.open_source(cube), seed=params.seed)
    matrix = cube.correction.matrix if cube.correction.matrix is not None else corrected_to_recorded(1, 0, 0, False)
    radius, contradicted = _radius(cube.acquisition, beam_radius_px)
    summing = classical.summing(plain, radius, matrix)
    # pictures alone are found in no image: masks are learned in the same pass as classical images
    together = templates.only_pictures(params)
    if not together:
        stream.run(summing)
    shown = classical.unseen(cube.scan_shape) if together else classical.found(summing, step)
    shared = scene.make(params, shown, step, crystals or {}, pictures or {}, learned or {})
    positions = int(shared.question.count.min())
    size = params.detector_bin or _binning(plain.cube.detector_shape, positions)
    source = plain if size == 1 else replace(plain, bin_px=size)
    learning = masks.gathering(source, shared.question, _fold(params, cube))
    stream.run(*([summing, learning] if together else [learning]))
    shown = classical.found(summing, step)
    fitted = _images(shared, source, radius, learned or {}, learning)
    notes = [*shared.prepared.notes, *contradicted, *_warnings(params, source, positions, cube)]
    return polarisation.added(results.gather(shared, source, shown, fitted, notes), params, step)


def _radius(known: Acquisition, measured: float) -> tuple[float, list[str]]:
    """Return the radius of the bright disk in px: channelling darkens its rim, which then is measured as background."""
    if not (known.beam_energy_kev and known.convergence_mrad and known.pixel_inv_angstrom):
        return measured, []
    stated = known.convergence_mrad * 1e-3 / known.wavelength_angstrom / known.pixel_inv_angstrom
    if abs(measured - stated) <= RADIUS_DIFFERS * stated:
        return measured, []
    note = f"the bright disk was measured to have a radius of {measured:.1f} px, but convergence and pixel give "
    return stated, [f"{note}{stated:.1f} px, which was taken; if that is not so, correct convergence_mrad"]


def _step(cube: Cube) -> np.ndarray:
    known = cube.acquisition.scan_step_angstrom
    if known is None:
        raise InputError(
            "no scan step",
            where="acquisition: scan_step_angstrom",
            expected="the distance between positions in Å: templates have widths in Å",
            do="Give scan_step_angstrom.",
        )
    if np.prod(cube.scan_shape) < FEWEST_POSITIONS:
        raise InputError(
            f"{np.prod(cube.scan_shape)} positions",
            where="template_mask",
            expected=f"at least {FEWEST_POSITIONS}, to correlate with a template",
            do="Widen the roi.",
        )
    return np.asarray(known, float)


def _binning(shape, positions: int) -> int:
    """Return the smallest number of pixels to sum along each axis that leaves no more pixels than positions."""
    size = 1
    while (shape[0] // size) * (shape[1] // size) > positions and size < min(shape) // 4:
        size += 1
    return size


def _warnings(params: Params, source: stream.Source, positions: int, cube: Cube) -> list[str]:
    notes = []
    full = int(np.prod(cube.detector_shape))
    if full > positions:
        bias = claims.expected_bias(full, positions)
        text = f"{full} detector pixels for {positions} positions: on pure noise an in-sample image would correlate "
        text += f"with its template by {bias:.2f}"
        if source.bin_px > 1:
            left = claims.expected_bias(source.pixels, positions)
            text += f"; masks were made of {source.bin_px} x {source.bin_px} pixels summed ({left:.2f} left)"
        notes.append(text)
    if not np.isfinite(cube.correction.counts_per_electron):
        notes.append("counts per electron are not known: counting noise is that of counts taken as electrons")
    return notes


# ---- masks and images -------------------------------------------------------------------------------------


def _fold(params: Params, cube: Cube) -> np.ndarray:
    """Return the part of the scan that each position is left out with; one part where none is."""
    if params.cross_fit == "split":
        _check_splitting(cube)
    if params.cross_fit == "folds":
        return masks.tiles(cube.scan_shape, params.fold_px)
    return np.zeros(cube.scan_shape, int)


def _images(shared: Scene, source: stream.Source, radius: float, learned: dict, learning: stream.Moments) -> Fitted:
    """Make masks of what was read and apply them: one pass, two where counts are split."""
    params, question = shared.params, shared.question
    shape = masks.form(params, source, radius, question.parity)
    many = len(shared.prepared.species)
    fold, sums = _fold(params, source.cube), masks.gathered(learning, question)
    found = masks.learn(sums, question, fold)
    fixed = np.zeros(len(question.template), bool)
    if learned:
        found, fixed = _given(shared, source, found, learned)
    if params.cross_fit == "folds":
        images = masks.folded(source, question, sums, shape, fold, many)
    elif params.cross_fit == "split":
        images = masks.halved(source, question, found, shape, many)
    else:
        images = masks.leave_one_out(source, question, found, shape, many, fixed)
    return Fitted(images, shape.weights(found, question.count), found)


def _given(shared: Scene, source: stream.Source, found: masks.Learned, learned: dict):
    """Put masks that were learned from another sample in the place of those of this one."""
    mask, fixed = found.mask.copy(), np.zeros(len(found.mask), bool)
    for k, one in enumerate(shared.prepared.species):
        if one.name not in learned:
            continue
        given = np.asarray(learned[one.name], float)
        if given.shape != source.cube.detector_shape:
            raise InputError(
                f"a mask of {given.shape[0]} x {given.shape[1]} px",
                where=f"template_mask: learned, of {one.name}",
                expected=f"one of {source.cube.detector_shape[0]} x {source.cube.detector_shape[1]} px",
                do="Learn it on a scan of the same detector, camera length and convergence.",
            )
        n, (ny, nx) = source.bin_px, source.shape
        mean = given[: ny * n, : nx * n].reshape(ny, n, nx, n).mean(axis=(1, 3))
        mask[k], fixed[k] = mean.reshape(-1), True
    return replace(found, mask=mask), fixed


def _check_splitting(cube: Cube) -> None:
    """Refuse to split what are not electrons: halves of other counts are not independent."""
    gain, noise = cube.correction.counts_per_electron, cube.correction.readout_noise_counts
    why = None
    if not np.issubdtype(cube.data.dtype, np.integer):
        why = f"counts of type {cube.data.dtype}"
    elif not np.isfinite(gain):
        why = "a gain that is not known"
    elif abs(gain - 1) > ONE_ELECTRON or np.nan_to_num(noise) > 0 or cube.correction.offset_counts != 0:
        offset = cube.correction.offset_counts
        why = f"{gain:.3g} counts per electron, readout noise {np.nan_to_num(noise):.3g}, offset {offset:.3g}"
    if why:
        raise InputError(
            why,
            where="template_mask: cross_fit: split",
            expected="integer counts of single electrons, whose binomial halves are independent",
            do="Use leave_one_out or folds, or state counts_per_electron: 1, offset_counts: 0 and "
            "readout_noise_counts: 0 for a detector that counts electrons.",
        )


def mask_of(species: str, file, names, learned) -> np.ndarray:
    """Return one species' mask of another result.

    Raises
    ------
    InputError
        If the file holds no masks, or none of this species.
    """
    if names is None or learned is None or species not in names:
        raise InputError(
            f"no mask of {species}" + (f", only of {', '.join(names)}" if names else ""),
            where=str(file),
            expected="template_mask.h5 of a sample in which the same species was learned",
            do="Correct `learned`, or name the species alike in both.",
        )
    return learned[list(names).index(species)]


def summary(result: Result) -> list[str]:
    """Return what the log says: one line per species, and what to know of the job."""
    lines = [
        f"{name}: {said}: {why}"
        for name, said, why in zip(result.species, result.statement, result.reason, strict=True)
    ]
    return [*lines, *([result.note] if result.note else [])]
