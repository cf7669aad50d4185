"""Candidates turned off the grid, and ranked anew.

A template here is a list of disks: their places follow from the orientation, their amplitudes are intensities (see
`templates`) raised to a power. Pattern B: counts, averaged over half a disk's radius, raised to the power, freed of
the mean of every ring of pixels; K: a disk a little larger than the beam. With D = B convolved with K::

    Q = Σ a_i D(x_i) / (‖B‖ ‖T‖ c)

‖B‖ runs over the whole pattern outside the direct beam, so that what no disk explains lowers Q. ‖T‖ counts what
lies on valid pixels and takes the ring means away, the disks of one ring together. c is what B and K of one disk
alone reach. Disks are taken not to overlap: where they do, Q is too large and is clipped to 1. The three angles
are searched by steps along lab axes and to the top of a parabola, shortened whenever none of them goes far.
"""

import numba
import numpy as np

from fourdstem.methods.orientation.candidates import distinct
from fourdstem.methods.orientation.filtering import prepare
from fourdstem.methods.orientation.search import climb
from fourdstem.methods.orientation.spots import Spots

# The search ends at this step, fine for the best candidate.
_COARSE, _FINE = np.deg2rad(0.1), np.deg2rad(0.02)
# A candidate that has found its place to the first step and whose Q is below this part of the best's stays there.
_BEHIND = 0.95


def refine(patterns, spots: Spots, step: float, symmetry: tuple, wanted: int, quaternion, phase, score) -> None:
    """Turn the candidates of patterns to where they fit best; sort them, drop those that have met.

    Parameters
    ----------
    patterns : ndarray of float32, shape (n, detector_y, detector_x)
    spots : Spots
    step : float
        First step of the search, rad.
    symmetry : tuple
        operations (m, 4), start (phases + 1,) and the angle in rad by which candidates must differ.
    wanted : int
        Candidates beyond this number are spare: refined only to take the place of dropped ones.
    quaternion, phase, score : ndarray of shape (n, candidates, 4), (n, candidates), (n, candidates)
        Changed. Phase -1 = no candidate: score and quaternion become NaN.
    """
    rods = spots.start, spots.g, spots.amplitude, spots.row, spots.table, spots.s_max, spots.optics
    rings = spots.ring, spots.order, spots.first
    how = spots.inside, (spots.box, spots.disk), spots.weight, rings, spots.power, spots.final > spots.power
    for pattern, *found in zip(patterns, quaternion, phase, score, strict=True):
        if found[1][0] >= 0:
            explained, final, norm = prepare(pattern, *how)
            if norm > 0:
                limits = step, spots.reach, norm * spots.best
                _choose(tuple(found), wanted, limits, rods, (explained, spots.seen, spots.per_ring), symmetry)
                _settle(found[0], found[1], spots.reach, rods, (final, spots.seen, spots.per_ring))


@numba.njit(nogil=True, cache=True)
def _choose(found, wanted, limits, rods, detector, symmetry):
    quaternion, phase, _ = found
    done = min(wanted, len(phase))
    kept = _refine_to(0, done, found, limits, rods, detector, symmetry)
    if phase[0] >= 0 and done < len(phase):
        # Half a turn about the beam changes a pattern least of all turns: the best candidate's is always tried.
        _move(found, done, len(phase) - 1)
        w, x, y, z = quaternion[0]
        quaternion[done, 0], quaternion[done, 1], quaternion[done, 2], quaternion[done, 3] = -z, y, -x, w
        phase[done] = phase[0]
        done += 1
        kept = _refine_to(done - 1, done, found, limits, rods, detector, symmetry)
    while kept < wanted and done < len(phase):
        first, done = done, min(done + wanted - kept, len(phase))
        kept = _refine_to(first, done, found, limits, rods, detector, symmetry)
    _blank(found, wanted)


@numba.njit(nogil=True, cache=True)
def _settle(quaternion, phase, reach, rods, detector):
    """Turn the best candidate to its final place."""
    if phase[0] >= 0:
        climb(quaternion[0], phase[0], 1, (2 * _COARSE, _FINE, reach, 0.0), rods, detector)


@numba.njit(nogil=True, cache=True)
def _refine_to(first, last, found, limits, rods, detector, symmetry):
    """Turn candidates ``first`` to ``last`` - 1, rank all before ``last``; the number of those left."""
    quaternion, phase, score = found
    best = score[0] * limits[2] if first > 0 and phase[0] >= 0 else 0.0
    for c in range(first, last):
        if phase[c] >= 0:
            value = climb(quaternion[c], phase[c], 0, (limits[0], _COARSE, limits[1], _BEHIND * best), rods, detector)
            score[c] = min(max(value / limits[2], 0.0), 1.0)
            best = max(best, value)
    _sort(found, last)
    kept = distinct(quaternion[:last], phase[:last], symmetry[0], symmetry[1], symmetry[2])
    left = 0
    for c in range(last):
        if kept[c]:
            _move(found, c, left)
            left += 1
    _blank((quaternion[:last], phase[:last], score[:last]), left)
    return left


@numba.njit(nogil=True, cache=True)
def _sort(found, last):
    """Candidates before ``last`` by score, those that are none last; equal ones keep their order."""
    for c in range(1, last):
        at = c
        while at > 0 and _better(found, at, at - 1):
            _swap(found, at, at - 1)
            at -= 1


@numba.njit(nogil=True, cache=True)
def _better(found, one, other):
    _, phase, score = found
    return phase[one] >= 0 and (phase[other] < 0 or score[one] > score[other])


@numba.njit(nogil=True, cache=True)
def _swap(found, one, other):
    quaternion, phase, score = found
    for k in range(4):
        quaternion[one, k], quaternion[other, k] = quaternion[other, k], quaternion[one, k]
    phase[one], phase[other] = phase[other], phase[one]
    score[one], score[other] = score[other], score[one]


@numba.njit(nogil=True, cache=True)
def _move(found, source, target):
    quaternion, phase, score = found
    for k in range(4):
        quaternion[target, k] = quaternion[source, k]
    phase[target], score[target] = phase[source], score[source]


@numba.njit(nogil=True, cache=True)
def _blank(found, first):
    quaternion, phase, score = found
    for c in range(first, len(phase)):
        for k in range(4):
            quaternion[c, k] = np.nan
        phase[c], score[c] = -1, np.nan
