"""What the parts of the stage share: templates, decoys, shifted templates, and where each mask is learned."""

from dataclasses import dataclass

import numpy as np

from fourdstem.errors import InputError
from fourdstem.methods.template_mask import masks, sites, templates
from fourdstem.methods.template_mask.settings import Params, Template


@dataclass(frozen=True)
class Scene:
    """What the parts of the stage share: templates in the order species, empty sites, wrong sites, ahead, behind.

    ``raw`` (template, scan_y, scan_x) are the templates before any is standardised or made partial.
    """

    params: Params
    prepared: templates.Prepared
    question: masks.Question
    raw: np.ndarray
    empty: list
    wrong: list
    step: np.ndarray
    elsewhere: list  # area of each species from which nothing was learned, or None


def make(params: Params, shown, step, crystals, pictures, learned) -> Scene:
    """Lay out the templates of all species, their decoys and their shifted copies.

    Raises
    ------
    InputError
        If templates do not fit the scan, or one is constant where its mask is learned.
    """
    prepared = templates.prepare(params, shown, step, crystals, pictures)
    shape, species = shown.image.shape[1:], prepared.species
    pairs = sites.decoys(species, prepared.basis, shape, step, params.seed)
    empty, wrong = [p[0] for p in pairs], [p[1] for p in pairs]
    shift = params.shift_angstrom / np.sqrt(2) * np.ones(2)
    raw = [s.template(shape, step) for s in (*species, *empty, *wrong)]
    raw += [s.template(shape, step, sign * shift) for sign in (1, -1) for s in species]
    areas = [area_of(t.region, shape) for t in prepared.template]
    region = np.stack(list({a.tobytes(): a for a in areas}.values()))
    of = np.array([next(i for i, r in enumerate(region) if (r == a).all()) for a in areas])
    of = np.tile(of, len(raw) // len(species))
    for one, template, k in zip(species * 5, raw, of, strict=True):
        _check_contrast(one.name, template[region[k]])
    made = [masks.standardised(t, region[k]) for t, k in zip(raw, of, strict=True)]
    if params.partial and len(species) > 1:
        made = [_partial(k, raw, region[of[k]], len(species)) for k in range(len(raw))]
    question = masks.Question(np.stack(made), region, of)
    away = [_elsewhere(t, a, learned) for t, a in zip(prepared.template, areas, strict=True)]
    return Scene(params, prepared, question, np.stack(raw), empty, wrong, step, away)


def _check_contrast(name: str, inside: np.ndarray) -> None:
    if np.ptp(inside) == 0:
        raise InputError(
            f"a template of {name} that is constant within its region",
            where="template_mask",
            expected="columns, and room for empty sites, inside the region from which the mask is learned",
            do="Widen `region`, or correct the template.",
        )


def area_of(limits, shape) -> np.ndarray:
    """Return (bool) the part [y0, y1, x0, x1] of a scan, all of it where ``limits`` is None."""
    area = np.zeros(shape, bool)
    y0, y1, x0, x1 = limits or (0, shape[0], 0, shape[1])
    area[y0:y1, x0:x1] = True
    return area


def _elsewhere(one: Template, area: np.ndarray, learned: dict) -> np.ndarray | None:
    """Return where the mask was not learned, None where that is nowhere."""
    if one.species in learned:
        return np.ones_like(area)
    return None if area.all() else ~area


def _partial(k: int, raw: list, region, species: int) -> np.ndarray:
    """Return template k without what the other species explain; sites that are shifted are still their own species."""
    own = k % species
    return masks.residual(raw[k], np.stack([raw[j] for j in range(species) if j != own]), region)
