"""From the configuration to species: which columns or picture each template is made of, and what is wrong with it."""

from dataclasses import dataclass

import numpy as np

from fourdstem.crystal import Crystal, atomic_number
from fourdstem.errors import InputError
from fourdstem.methods.template_mask import lattice, registration
from fourdstem.methods.template_mask.classical import Classical
from fourdstem.methods.template_mask.settings import Params, Template
from fourdstem.methods.template_mask.sites import Species
from fourdstem.schema import build

FINEST_STEPS = 2.0  # positions per width of a template, at least; else columns fall between positions
SAME_COLUMN_ANGSTROM = 0.3


@dataclass(frozen=True)
class Prepared:
    """Templates ready to be learned from.

    Attributes
    ----------
    template : list of Template
    species : list of Species
    basis : ndarray of shape (2, 2) or None
        Lattice vectors in Å.
    registration : float or None
        How well a CIF's picture fits the image.
    notes : list of str
    """

    template: list[Template]
    species: list[Species]
    basis: np.ndarray | None
    registration: float | None
    notes: list[str]


def read(params: Params, scan_shape) -> list[Template]:
    """Return the templates of the configuration.

    Raises
    ------
    InputError
        If there are none, one has no source or several, a name is used twice, or a region lies outside the scan.
    """
    found = [build(Template, dict(entry)) for entry in params.templates]
    if not found:
        raise _wrong("no templates", "one block per species", "Add `template_mask: templates:`.")
    names = [t.species for t in found]
    for one in found:
        if not one.species or names.count(one.species) > 1:
            raise _wrong(f"species names {names}", "a name of its own for each template", "Rename them.")
        given = [k for k in ("element", "sublattice", "file") if getattr(one, k) is not None]
        if len(given) != 1:
            what = " and ".join(given) or "neither element, sublattice nor file"
            raise _wrong(f"template {one.species} has {what}", "exactly one of the three", "Give one.")
        for key in ("region", "control"):
            _check_area(one, key, scan_shape)
    return found


def _check_area(one: Template, key: str, scan_shape) -> None:
    area = getattr(one, key)
    if area is None:
        return
    y0, y1, x0, x1 = area
    if not (y0 < y1 <= scan_shape[0] and x0 < x1 <= scan_shape[1]):
        found = f"{key} {list(area)} of template {one.species}, outside the scan or empty"
        size = f"[0, {scan_shape[0]}, 0, {scan_shape[1]}]"
        raise _wrong(found, f"[y0, y1, x0, x1] within {size}", f"Correct {key}.")


def only_pictures(params: Params) -> bool:
    """Tell whether all templates are pictures, so that nothing is looked for in an image of the scan."""
    return all(entry.get("element") is None and entry.get("sublattice") is None for entry in params.templates)


def prepare(
    params: Params, classical: Classical, step, crystals: dict[str, Crystal], pictures: dict[str, np.ndarray]
) -> Prepared:
    """Find the columns of each species in the scan.

    Parameters
    ----------
    crystals : dict
        By the name of the phase, in the sample's order.
    pictures : dict
        ``{species: array (scan_y, scan_x)}`` of templates from files.

    Raises
    ------
    InputError
        If the lattice is not resolved, a CIF does not fit, a sublattice or element is not there, or a picture has
        another shape or is constant.
    """
    image = classical[params.image]
    found = read(params, image.shape)
    dark = params.image in ("bright_field", "annular_bright_field")
    notes: list[str] = []
    basis, agreement, groups, laid = None, None, None, {}
    species = []
    for one in found:
        if one.element is not None:
            crystal = _crystal(one, crystals)
            if crystal.name not in laid:
                order = params.distortion_order
                laid[crystal.name] = registration.register(
                    image, crystal, params.zone_axis, step, dark, order, _shared_region(found, crystal.name, crystals)
                )
                basis, agreement = laid[crystal.name].basis, laid[crystal.name].agreement
            sites = _element_sites(one, crystal, laid[crystal.name], image.shape, step)
            species.append(Species(one.species, sites, one.width_angstrom))
        elif one.sublattice is not None:
            if groups is None:
                seen = -image if dark else image
                basis = lattice.find_lattice(seen, step)
                groups = lattice.sublattices(*lattice.peaks(seen, step), basis, step)
            species.append(Species(one.species, _group(one, groups), one.width_angstrom))
        else:
            picture = _picture(one, pictures[one.species], image.shape)
            species.append(Species(one.species, None, one.width_angstrom, picture))
    _check_width(found, step)
    sites = {s.name: s.site_px for s in species if s.site_px is not None}
    for a, b in registration.overlapping(sites, np.asarray(step), SAME_COLUMN_ANGSTROM):
        notes.append(f"the columns of {a} and {b} lie on each other: no image can tell these two apart")
    return Prepared(found, species, basis, agreement, notes)


def _crystal(one: Template, crystals: dict[str, Crystal]) -> Crystal:
    name = one.phase or next(iter(crystals), None)
    if name not in crystals:
        expected = f"one of the sample's phases ({', '.join(crystals) or 'it has none'})"
        raise _wrong(f"phase {name} of template {one.species}", expected, "Add it to the sample's `phases:`.")
    return crystals[name]


def _shared_region(found: list[Template], phase: str, crystals) -> tuple | None:
    """Return the part of the scan from which all masks of a phase are learned: the domain that its CIF describes."""
    regions = {t.region for t in found if t.element is not None and _crystal(t, crystals).name == phase}
    return regions.pop() if len(regions) == 1 else None


def _element_sites(one: Template, crystal: Crystal, laid, shape, step) -> np.ndarray:
    known = registration.names(crystal)
    if one.element not in known:
        found = f"element {one.element} of template {one.species}, which {crystal.name} does not hold"
        raise _wrong(found, f"one of {', '.join(known)}", "Correct the element.")
    found = laid.sites(atomic_number(one.element), shape, step, one.alone)
    if not len(found):
        said = f"no column of {one.element} apart from others along the zone axis of {crystal.name}"
        raise _wrong(
            f"{said}, for template {one.species}", "a column of its own", "Remove `alone`, or look along another axis."
        )
    return found


def _group(one: Template, groups: list[np.ndarray]) -> np.ndarray:
    if one.sublattice >= len(groups):
        found = f"sublattice {one.sublattice} of template {one.species}, but {len(groups)} were found"
        raise _wrong(found, f"0 to {len(groups) - 1}", "Choose one of these, or another `image`.")
    return groups[one.sublattice]


def _picture(one: Template, picture: np.ndarray, shape) -> np.ndarray:
    where = one.file if one.dataset is None else f"{one.file}, {one.dataset}"
    if picture.shape != tuple(shape):
        raise InputError(
            f"a template of {' x '.join(map(str, picture.shape))}",
            where=where,
            expected=f"one number per scan position, {shape[0]} x {shape[1]}",
            do="Crop or resample the picture to the scan (after roi, stride and bin).",
        )
    if not np.isfinite(picture).all() or np.ptp(picture) == 0:
        what = "not a number in places" if not np.isfinite(picture).all() else f"{picture.flat[0]:g} everywhere"
        raise InputError(
            f"a template that is {what}",
            where=where,
            expected="a picture with contrast",
            do="Give the picture that the image shall look like.",
        )
    return np.asarray(picture, float)


def _check_width(found: list[Template], step) -> None:
    for one in found:
        if one.file is None and max(step) > FINEST_STEPS * one.width_angstrom:
            raise _wrong(
                f"a scan step of {max(step):g} Å for template {one.species}, {one.width_angstrom:g} Å wide",
                f"a step of at most {FINEST_STEPS:g} times the width: a scan of atomic resolution",
                "Check scan_step_angstrom; columns cannot be imaged in a coarser scan.",
            )


def _wrong(found: str, expected: str, do: str) -> InputError:
    return InputError(found, where="template_mask", expected=expected, do=do)
