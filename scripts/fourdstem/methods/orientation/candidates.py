"""From the peaks of all templates to a few orientations per pattern that are truly distinct."""

import numba
import numpy as np

from fourdstem import jit  # noqa: F401  compiled code is cached safely
from fourdstem.methods.orientation.vectors import TILTS, nearest

# Peaks are sorted in slices, each down to this part of its upper end; below so little in one.
_SLICE, _LEAST = np.float32(0.7), np.float32(1e-3)


@numba.njit(nogil=True, cache=True)
def select(peak_score, place, usable, rows, symmetry, found, azimuths):
    """Pick the best candidates of every pattern, each more than an angle away from all before it.

    Parameters
    ----------
    peak_score, place : ndarray of float32, shape (template, 2, peak, patterns)
        From `matching.correlate`.
    usable : ndarray of bool, shape (patterns,)
    rows : tuple
        Orientation (2, template, 4) at in-plane angle 0 of each template and of its mirror image, phase (template,).
    symmetry : tuple
        Rotations of the Laue groups of all phases, as quaternions (m, 4); start (phases + 1,):
        ``operations[start[p]:start[p + 1]]`` belong to phase p; the angle in rad. Orientations of different
        phases are always distinct.
    found : tuple of ndarray
        Filled: quaternion (patterns, candidates, 4), phase (patterns, candidates), score (patterns, candidates);
        left alone where there are no more.
    azimuths : int
    """
    (quaternion, phase), (operations, start, distinct) = rows, symmetry
    templates, _, peaks, patterns = peak_score.shape
    wanted, near = found[1].shape[1], np.cos(distinct / 2)
    value, heap = np.empty(templates * 2 * peaks, np.float32), np.empty(templates * 2 * peaks, np.int32)
    # Equivalents of the candidates taken so far.
    images = np.zeros((wanted, 4, (len(operations) + TILTS - 1) // TILTS * TILTS))
    for b in range(patterns):
        if not usable[b]:
            continue
        high, low, taken = np.float32(np.inf), _fill(peak_score, b, value), 0
        while taken < wanted and high > 0:
            # Few of all peaks are looked at: they are sorted by and by, from the highest.
            low = low * _SLICE if low > _LEAST else np.float32(0)
            left = _heapify(heap, value, low, high)
            while taken < wanted and left > 0:
                entry = heap[0]
                left = _drop_top(heap, value, left)
                t, mirror, peak = entry // (2 * peaks), entry // peaks % 2, entry % peaks
                q = turned(quaternion[mirror, t], 2 * np.pi * place[t, mirror, peak, b] / azimuths)
                if _is_new(q, phase[t], found[1][b, :taken], images, near):
                    _take(q, phase[t], value[entry], (found[0][b, taken], found[1][b], found[2][b]), taken)
                    _turn(q, operations[start[phase[t]] : start[phase[t] + 1]], images[taken])
                    taken += 1
            high = low


@numba.njit(nogil=True, cache=True)
def _fill(score, pattern, value):
    """Copy the peaks of a pattern; their highest."""
    at, highest = 0, np.float32(0)
    for t in range(score.shape[0]):
        for mirror in range(2):
            for peak in range(score.shape[2]):
                value[at] = score[t, mirror, peak, pattern]
                highest = max(highest, value[at])
                at += 1
    return highest


@numba.njit(nogil=True, cache=True)
def _take(q, phase, value, found, taken):
    for k in range(4):  # assigning an array to an array takes numba seconds to compile
        found[0][k] = q[k]
    found[1][taken], found[2][taken] = phase, value


@numba.njit(nogil=True, cache=True)
def _turn(q, operations, images):
    """Fill ``images`` with the equivalents of q, and from there on with 0."""
    for o in range(images.shape[1]):
        image = times(operations[o], q) if o < len(operations) else (0.0, 0.0, 0.0, 0.0)
        for k in range(4):
            images[k, o] = image[k]


@numba.njit(nogil=True, cache=True)
def _is_new(q, phase, phases, images, near):
    for c in range(len(phases)):
        if phases[c] == phase and nearest(images, c * 4 * images.shape[2], images.shape[2], q) > near:
            return False
    return True


@numba.njit(nogil=True, cache=True)
def _heapify(heap, value, low, high):
    """Order entries of ``value`` in low < … ≤ high as a heap, largest (of equals the first) on top; their number."""
    count = 0
    for i in range(len(value)):
        heap[count] = i
        count += (value[i] > low) & (value[i] <= high)
    for i in range(count // 2 - 1, -1, -1):
        _sink(heap, value, i, count)
    return count


@numba.njit(nogil=True, cache=True)
def _drop_top(heap, value, size):
    heap[0] = heap[size - 1]
    _sink(heap, value, 0, size - 1)
    return size - 1


@numba.njit(nogil=True, cache=True)
def _sink(heap, value, at, size):
    entry = heap[at]
    while 2 * at + 1 < size:
        child = 2 * at + 1
        if child + 1 < size and _above(heap[child + 1], heap[child], value):
            child += 1
        if not _above(heap[child], entry, value):
            break
        heap[at] = heap[child]
        at = child
    heap[at] = entry


@numba.njit(nogil=True, cache=True)
def _above(one, other, value):
    return value[one] > value[other] or (value[one] == value[other] and one < other)


@numba.njit(nogil=True, cache=True)
def distinct(quaternion, phase, operations, start, angle):
    """Which candidates, best first, are farther than ``angle`` from every better one of their phase."""
    kept = phase >= 0
    for c in range(len(phase)):
        for b in range(c):
            if kept[c] and kept[b] and phase[b] == phase[c]:
                for o in range(start[phase[c]], start[phase[c] + 1]):
                    p, q = times(operations[o], quaternion[b]), quaternion[c]
                    if abs(p[0] * q[0] + p[1] * q[1] + p[2] * q[2] + p[3] * q[3]) > np.cos(angle / 2):
                        kept[c] = False
    return kept


@numba.njit(nogil=True, cache=True)
def turned(q, angle):
    """Orientation whose pattern is that of ``q`` turned in plane by ``angle`` from +x towards +y: q z(-angle)."""
    c, s = np.cos(angle / 2), np.sin(angle / 2)
    return c * q[0] + s * q[3], c * q[1] - s * q[2], c * q[2] + s * q[1], c * q[3] - s * q[0]


@numba.njit(nogil=True, cache=True)
def times(a, b):
    """Quaternion product a b."""
    return (
        a[0] * b[0] - a[1] * b[1] - a[2] * b[2] - a[3] * b[3],
        a[0] * b[1] + a[1] * b[0] + a[2] * b[3] - a[3] * b[2],
        a[0] * b[2] - a[1] * b[3] + a[2] * b[0] + a[3] * b[1],
        a[0] * b[3] + a[1] * b[2] - a[2] * b[1] + a[3] * b[0],
    )
