"""What the parts of the stage share: templates, decoys, shifted templates, and where each mask is learned."""

from dataclasses import dataclass

import numpy as np

from fourdstem.errors import InputError
from fourdstem.methods.template_mask import joined, masks, sites, templates
from fourdstem.methods.template_mask.settings import Params, Template


@dataclass(frozen=True)
class Scene:
    """What the parts of the stage share: templates in the order species, empty sites, wrong sites, ahead, behind.

    ``raw`` (template, scan_y, scan_x) are the templates before any is standardised or made partial. After them the
    question has the slopes of species, empty sites, ahead and behind; ``triples`` names each template with its slopes.
    """

    params: Params
    prepared: templates.Prepared
    question: masks.Question
    raw: np.ndarray
    empty: list
    wrong: list
    step: np.ndarray
    elsewhere: list  # area of each species from which nothing was learned, or None
    triples: list  # empty where slopes are not asked for


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
    question, triples = _question(params, raw, region, of, len(species), step, not learned)
    away = [_elsewhere(t, a, learned) for t, a in zip(prepared.template, areas, strict=True)]
    return Scene(params, prepared, question, np.stack(raw), empty, wrong, step, away, triples)


def _question(params: Params, raw: list, region, of, species: int, step, own: bool):
    """Return the templates as they are learned from, slopes behind them, and which slopes are whose."""
    asked, index, triples = list(raw), list(range(len(raw))), []
    if own and params.slopes and params.symmetrise and params.mask == "signed" and not params.significance:
        with_slopes = [k for k in index if not 2 * species <= k < 3 * species]  # of all but wrong sites
        pairs = [joined.slopes(raw[k], step) for k in with_slopes]
        first, many = len(raw), len(pairs)
        triples = [(k, first + i, first + many + i) for i, k in enumerate(with_slopes)]
        asked += [p[0] for p in pairs] + [p[1] for p in pairs]
        index += with_slopes * 2
    at = of[index]
    if params.partial and species > 1:
        start = np.repeat([0, len(raw), len(raw) + len(triples)], [len(raw), len(triples), len(triples)])
        others = [asked[i : i + species] for i in start]
        asked = [_partial(t, k % species, o, region[r]) for t, k, o, r in zip(asked, index, others, at, strict=True)]
    scale = np.array([t[region[r]].std() for t, r in zip(asked, at, strict=True)])
    made = np.stack([masks.standardised(t, region[r]) for t, r in zip(asked, at, strict=True)])
    parity = np.where(np.arange(len(asked)) < len(raw), 1, -1)
    return masks.Question(made, region, at, parity, scale), triples


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


def _partial(template, own: int, species: list, region) -> np.ndarray:
    """Return a template without what other species explain; sites that are shifted are still their own species."""
    return masks.residual(template, np.stack([other for j, other in enumerate(species) if j != own]), region)
