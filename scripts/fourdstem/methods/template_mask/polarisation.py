"""Displacement of columns from the middle of those that surround them, with its uncertainty: a measure of polarisation.

Anions against the cations about them: Jia et al., Nat. Mater. 7, 57 (2008), doi:10.1038/nmat2080; a B-site against its
four neighbours of the A-site: Nelson et al., Nano Lett. 11, 828 (2011), doi:10.1021/nl1041808.
"""

from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial import cKDTree

from fourdstem.errors import InputError
from fourdstem.methods.template_mask.settings import Params, Polarisation, Result, Template
from fourdstem.schema import build

FARTHEST = 1.75  # by the nearest: columns farther than this do not surround a site, one of theirs is missing
ASIDE = 0.5  # of the nearest: how far from the site the middle of its neighbours may lie
CHARGE_UC_CM2 = 1602.176634  # one elementary charge per Å² in µC/cm²
TABLE_NAMES = (
    "pair", "site_y_px", "site_x_px", "centre_y_px", "centre_x_px", "dy_pm", "dx_pm", "sigma_y_pm", "sigma_x_pm",
    "polarisation_y_uc_cm2", "polarisation_x_uc_cm2",
)  # fmt: skip


@dataclass(frozen=True)
class Cages:
    """Sites that are surrounded: index of each site, and of its neighbours, (cage,) and (cage, neighbour)."""

    site: np.ndarray
    around: np.ndarray


def read(params: Params) -> list[Polarisation]:
    """Return what is to be measured against what.

    Raises
    ------
    InputError
        If a species has no template, is measured against itself, a pair is given twice, or a charge comes without
        its volume.
    """
    pairs = [build(Polarisation, dict(entry)) for entry in params.polarisation]
    species = [build(Template, dict(entry)).species for entry in params.templates]
    for one in pairs:
        said = f"polarisation of {one.species} against {one.against}"
        if one.species not in species or one.against not in species or one.species == one.against:
            raise _wrong(said, f"two of the species {', '.join(species)}", "Name species that have templates.")
        if (one.born_charge is None) != (one.volume_cubic_angstrom is None):
            given = "born_charge" if one.volume_cubic_angstrom is None else "volume_cubic_angstrom"
            raise _wrong(f"{said}: {given} alone", "both or neither", "Give the other one too, or remove it.")
    names = [(one.species, one.against) for one in pairs]
    for one in names:
        if names.count(one) > 1:
            raise _wrong(f"polarisation of {one[0]} against {one[1]}, twice", "every pair once", "Remove one.")
    return pairs


def _wrong(found: str, expected: str, do: str) -> InputError:
    return InputError(found, where="template_mask: polarisation", expected=expected, do=do)


def added(result: Result, params: Params, step) -> Result:
    """Return a result with the vectors that its settings ask for; they are NaN where positions are not published.

    Parameters
    ----------
    result : Result
    params : Params
    step : (float, float)
        Å, (y, x).
    """
    pairs = read(params)
    if not pairs:
        return result
    site, place, sigma = (
        np.asarray(v, float) for v in (result.column_site_px, result.column_position_px, result.column_sigma_px)
    )
    rows = {key: [] for key in ("pair", "column", "centre", "move", "sigma", "charge")}
    for i, one in enumerate(pairs):
        own, other = (result.column_species == result.species.index(name) for name in (one.species, one.against))
        cages = surrounded(site[own] * step, site[other] * step, one.neighbours)
        centre, move, error = displaced(place[own], place[other], sigma[own], sigma[other], cages, step)
        known = one.born_charge is not None
        share = CHARGE_UC_CM2 * one.born_charge / one.volume_cubic_angstrom if known else np.nan
        column = np.flatnonzero(own)[cages.site]
        values = (np.full(len(move), i), column, centre, 100 * move, 100 * error, share * move)
        for key, value in zip(rows, values, strict=True):
            rows[key].append(value)
    pair, column, centre, move, error, charge = (np.concatenate(value) for value in rows.values())
    return replace(
        result,
        polarisation_name=tuple(f"{one.species} against {one.against}" for one in pairs),
        polarisation_pair=pair.astype(np.int32),
        polarisation_column=column.astype(np.int32),
        polarisation_centre_px=centre.astype(np.float32),
        polarisation_pm=move.astype(np.float32),
        polarisation_sigma_pm=error.astype(np.float32),
        polarisation_uc_cm2=charge.astype(np.float32),
    )


def surrounded(own, other, neighbours: int) -> Cages:
    """Return the columns that have their neighbours on all sides; at the end of a scan some are missing.

    Parameters
    ----------
    own, other : ndarray of shape (column, 2)
        Sites in Å.
    """
    if len(other) < neighbours or not len(own):
        return Cages(np.zeros(0, int), np.zeros((0, neighbours), int))
    apart, index = cKDTree(other).query(own, k=neighbours)
    aside = np.linalg.norm(other[index].mean(axis=1) - own, axis=1)
    good = (apart[:, -1] <= FARTHEST * apart[:, 0]) & (aside <= ASIDE * apart[:, 0])
    return Cages(np.flatnonzero(good), np.sort(index[good], axis=1))


def displaced(own, other, own_sigma, other_sigma, cages: Cages, step) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the middle of each cage (px), how far its column lies from it, and the standard deviation of that (Å).

    With n neighbours at r_i, ``d = r - Σ r_i / n`` and ``σ² = σ_r² + Σ σ_i² / n²``.

    Parameters
    ----------
    own, other, own_sigma, other_sigma : ndarray of shape (column, 2)
        Positions and their standard deviations, px.
    """
    centre = other[cages.around].mean(axis=1)
    move = (own[cages.site] - centre) * step
    error2 = own_sigma[cages.site] ** 2 + (other_sigma[cages.around] ** 2).mean(axis=1) / cages.around.shape[1]
    known = np.isfinite(move).all(axis=1, keepdims=True)
    return centre, move, np.where(known, np.sqrt(error2) * step, np.nan)


def table_rows(result: Result) -> list[tuple]:
    """Return the rows of the table of vectors, by `TABLE_NAMES`; none where no pair was asked for."""
    if result.polarisation_name is None:
        return []
    parts = (
        result.column_site_px[result.polarisation_column], result.polarisation_centre_px, result.polarisation_pm,
        result.polarisation_sigma_pm, result.polarisation_uc_cm2,
    )  # fmt: skip
    values = np.concatenate(parts, axis=1)
    return [
        (result.polarisation_name[i], *map(float, v)) for i, v in zip(result.polarisation_pair, values, strict=True)
    ]
