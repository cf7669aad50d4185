"""Which phase a pattern shows, how far the next phase is behind, and which phases are too alike to tell apart.

Every phase is indexed by itself, as if it were the only one, and the candidates are merged. With Q of the best phase
and Q' of the best of all others::

    phase reliability = 100 (1 − Q' / Q)
"""

import itertools
import logging

import numpy as np

from fourdstem.crystal import Crystal
from fourdstem.cube import UNIT
from fourdstem.methods.orientation.matching import Bank, Optics, correlate, draw, prepare
from fourdstem.methods.orientation.polar import Rings, polar_map
from fourdstem.methods.orientation.rotations import to_matrix

log = logging.getLogger("fourdstem")

# Two phases fit a pattern alike where their correlations differ by less than this part of the better one.
ALIKE = 0.01
# Told where more than this share of orientations or patterns is fitted alike by another phase.
ALIKE_SHARE = 0.25
_GOLDEN = 0.6180339887498949


def of_phase(bank: Bank, phase: int) -> slice:
    """Templates of one phase, which follow one another."""
    return slice(*np.searchsorted(bank.phase, [phase, phase + 1]))


def merged(lists: list[tuple], wanted: int) -> tuple[np.ndarray, ...]:
    """Merge the candidates of all phases.

    Parameters
    ----------
    lists : list of tuple of ndarray
        By phase: quaternion (n, candidates, 4), phase (n, candidates), score (n, candidates), best first;
        missing ones NaN and -1.
    wanted : int

    Returns
    -------
    quaternion, phase, score : ndarray
        Likewise, of all phases.
    best : ndarray of shape (n, phases)
        Best score of each phase; NaN where it has no candidate.
    """
    best = np.stack([score[:, 0] for _, _, score in lists], axis=1)
    quaternion, phase, score = (np.concatenate(part, axis=1) for part in zip(*lists, strict=True))
    order = np.argsort(-np.where(phase >= 0, score, -np.inf), axis=1, kind="stable")[:, :wanted]
    taken = (np.take_along_axis(part, order, 1) for part in (phase, score))
    return np.take_along_axis(quaternion, order[..., None], 1), *taken, best


def reliability(best: np.ndarray) -> np.ndarray | None:
    """100 (1 − Q'/Q) from the best scores of the phases, shape (..., phases); None where there is one phase only."""
    if best.shape[-1] < 2:
        return None
    ordered = np.sort(np.nan_to_num(best, nan=0.0), axis=-1)
    first, second = ordered[..., -1], ordered[..., -2]
    whole = np.where(first > 0, first, 1)
    return np.where(first > 0, 100 * (1 - second / whole), np.nan).astype(np.float32)


def alike_templates(
    crystals: list[Crystal], bank: Bank, optics: Optics, rings: Rings, sampling_deg: float
) -> list[tuple[str, str, float, str]]:
    """Say which phases have templates that another phase matches just as well.

    Of each phase 32 templates, spread over all of its, are matched like patterns with the templates of both phases.

    Returns
    -------
    list of (str, str, float, str)
        Name of a phase, name of another, the share of the first one's templates whose correlation with the other's
        best template is within 1 % of that with its own, and of what that is the share; all ordered pairs.
    """
    if len(crystals) < 2:
        return []
    half = int(np.ceil(rings.radius[-1] + rings.width + optics.disk_px + 2))
    weights, _ = polar_map(rings, (2 * half + 1, 2 * half + 1))
    found = []
    for k, crystal in enumerate(crystals):
        own = of_phase(bank, k)
        # Golden section, so that no period of the grid is met.
        chosen = own.start + (np.arange(UNIT) * _GOLDEN % 1 * (own.stop - own.start)).astype(int)
        images = draw(crystal, to_matrix(bank.quaternion[0, chosen]), optics, half, sampling_deg)
        polar = (weights @ images.T).T.reshape(UNIT, len(rings.radius), rings.azimuths)
        prepared, usable = prepare(polar, bank)
        score = correlate(prepared, bank)[0].max(axis=(1, 2))
        best = np.stack([score[of_phase(bank, n)].max(axis=0) for n in range(len(crystals))])
        for n in range(len(crystals)):
            if n != k:
                share = np.mean((best[n] >= (1 - ALIKE) * best[k])[usable]) if usable.any() else 0.0
                found.append((crystal.name, crystals[n].name, float(share), f"{UNIT} templates of {crystal.name}"))
    return found


def alike_patterns(result) -> list[tuple[str, str, float, str]]:
    """Say for which phases the map has positions that another phase fits just as well.

    Parameters
    ----------
    result : orientation.Result

    Returns
    -------
    list of (str, str, float, str)
        For every pair of phases: names, the share of the positions indexed as one of the two whose correlations
        with both are within 1 %, and of what that is the share. Pairs without positions are left out.
    """
    best, found = result.phase_correlation, []
    for a, b in itertools.combinations(range(len(result.phase_name)), 2):
        here = np.isin(result.phase, (a, b))
        if best is None or not here.any():
            continue
        pair = np.nan_to_num(best[here][:, [a, b]])
        share = np.mean(pair.min(axis=1) >= (1 - ALIKE) * pair.max(axis=1))
        what = f"{here.sum()} patterns indexed as one of the two"
        found.append((result.phase_name[a], result.phase_name[b], float(share), what))
    return found


def tell_alike(pairs: list[tuple[str, str, float, str]]) -> None:
    """Warn in the log of phases that fit more than a quarter of templates or patterns alike."""
    for one, other, share, what in pairs:
        if share > ALIKE_SHARE:
            log.warning("phases %s and %s are too alike to be told apart surely: %s", one, other, sentence(share, what))


def sentence(share: float, what: str) -> str:
    """By what measure two phases are alike."""
    return f"both fit {100 * share:.0f} % of {what} within {100 * ALIKE:.0f} % of the correlation"
