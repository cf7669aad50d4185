"""How far each classical way's centre is from the truth, beside the bound, and which part of a pattern costs what."""

from dataclasses import replace

import numpy as np

from fourdstem.methods.evaluate_preprocess import known as truth
from fourdstem.methods.evaluate_preprocess.denoising import recorded_of
from fourdstem.methods.preprocess.beam import Beam
from fourdstem.methods.preprocess.centre import locate
from fourdstem.methods.preprocess.moments import Noise
from fourdstem.methods.preprocess.search import finder_of
from fourdstem.methods.training import patterns
from fourdstem.methods.training.examining import DOSES, by_class, cramer_rao

WAYS = ("disk_correlation", "centre_of_mass", "blurred_maximum", "friedel")
SLOPED = "disk_correlation with slope"
SPREADS = (0.03, 0.06, 0.12, 0.25, 0.5)  # that the slope's prior may have; tuned by dose
WINDOW_PX = 13.0  # about the middle of the detector: beams are shifted by up to 12 px
CONTRAST = 10.0
ELECTRONS = 1e6  # of the patterns that parts are left out of


def table(known, tuning, seed: int, say) -> list[tuple]:
    """Rows of every way, dose and class of radius: mean, median, 95 %, share beyond 1 px or not found.

    Radius and edge of the disk are given to all, as a scan's many patterns tell them; the place is sought within 13 px
    of the detector's middle. The bound is that of the direct disk and all that lies about it.
    """
    rows, finders, of_tuning = [], _finders(known), _finders(tuning)
    for dose in DOSES:
        recorded, learnt = recorded_of(known, dose, seed), recorded_of(tuning, dose, seed)
        best = min(SPREADS, key=lambda s: np.minimum(_errors(learnt, tuning, of_tuning, WAYS[0], s), 1).mean())
        rows.append(("centre", "tuning", SLOPED, dose, "", "setting", f"{best:g}", len(tuning.images)))
        found = {way: _errors(recorded, known, finders, way) for way in WAYS}
        found[SLOPED] = _errors(recorded, known, finders, WAYS[0], best)
        bound = cramer_rao(recorded).numpy()
        for label, chosen in by_class(known.radii):
            rows.append(
                ("centre", "patterns", "bound", dose, label, "median (px)", np.median(bound[chosen]), chosen.sum())
            )
            for way, error in found.items():
                told = _summary(error[chosen])
                rows += [("centre", "patterns", way, dose, label, k, v, chosen.sum()) for k, v in told.items()]
        say(f"centres at {dose:g} electrons per pattern done")
    return rows


def _summary(error) -> dict[str, float]:
    """Numbers of errors, infinite where no centre was found; mean and 95 % are of those found."""
    seen = error[np.isfinite(error)]
    told = {"median (px)": np.median(error), "beyond 1 px or not found": np.mean(error > 1)}
    if len(seen):
        told |= {"mean (px)": seen.mean(), "95 % (px)": np.quantile(seen, 0.95)}
        told["mean of those within 1 px (px)"] = seen[seen <= 1].mean() if (seen <= 1).any() else np.inf
    return told


def _finders(known) -> list:
    """What `locate` needs of every pattern; see `table` for what is known beforehand."""
    shape = tuple(known.images.shape[-2:])
    middle = (np.array(shape) - 1) / 2
    return [
        finder_of(
            Beam(float(radius), float(edge), CONTRAST), Noise(0.0, 1.0, 0.01), middle[None, None], WINDOW_PX, shape
        )
        for radius, edge in zip(known.radii, known.edges, strict=True)
    ]


def _errors(recorded, known, finders, way: str, spread: float = 0.0) -> np.ndarray:
    """Distance to the truth of every pattern, px; infinite where the way finds no beam."""
    out = np.empty(len(finders))
    for i, finder in enumerate(finders):
        found = locate(recorded.electrons[i].numpy(), replace(finder, spread=spread), finder.predicted_px[0], way)
        out[i] = np.hypot(*(found[0, :2] - known.extras[i, :2].numpy()))
    return np.where(np.isfinite(out), out, np.inf)


def _even(scene):
    return replace(scene, tilt=np.zeros(2), darkening=truth.NO_CURVES)


def _round(scene):
    return replace(scene, optics=replace(scene.optics, ratio=1.0, probe=np.eye(2)))


def _bare(scene):
    return replace(scene, smooth=np.zeros_like(scene.smooth))


def _apart(scene):
    """Leave out disks whose edge reaches the direct disk."""
    near = 1.25 * (2 * scene.optics.radius + 5 * scene.optics.edge)
    far = [np.hypot(*(table[0] @ scene.optics.matrix.T).T) >= near for table in scene.tables]
    return replace(scene, tables=tuple(tuple(part[f] for part in t) for t, f in zip(scene.tables, far, strict=True)))


INGREDIENTS = {
    "whole patterns": lambda s: s,
    "no slope of brightness in the direct disk": lambda s: replace(s, tilt=np.zeros(2)),
    "no dark lines in the direct disk": lambda s: replace(s, darkening=truth.NO_CURVES),
    "direct disk even": _even,
    "no disks that touch the direct one": _apart,
    "no diffracted disks": lambda s: replace(s, tables=()),
    "background about the beam": lambda s: replace(s, middle=s.centre),
    "no background": _bare,
    "camera and probe round": _round,
    "direct disk even, none that touch": lambda s: _apart(_even(s)),
    "direct disk even, background about the beam": lambda s: replace(_even(s), middle=s.centre),
    "an even round disk alone": lambda s: _round(_bare(replace(_even(s), tables=()))),
}


def ingredients(seed: int, count: int, say) -> list[tuple]:
    """Rows of the error at a million electrons with one part of the training's patterns after another left out."""
    scenes = [patterns.draw_scene(seed, "train", i) for i in range(count)]
    rows, finders = [], None
    for label, change in INGREDIENTS.items():
        known = truth.of_scenes([change(scene) for scene in scenes])
        finders = finders or _finders(known)  # radius and edge are those of the whole patterns
        recorded = recorded_of(known, ELECTRONS, seed)
        for way, spread in ((WAYS[0], 0.0), (SLOPED, 0.25), (WAYS[1], 0.0)):
            error = _errors(recorded, known, finders, WAYS[0] if way == SLOPED else way, spread)
            told = _summary(error)
            rows += [("centre", "parts left out", way, ELECTRONS, label, k, v, count) for k, v in told.items()]
        bound = np.median(cramer_rao(recorded).numpy())
        rows.append(("centre", "parts left out", "bound", ELECTRONS, label, "median (px)", bound, count))
    say("centres with parts of the patterns left out done")
    return rows
