"""From the peaks of all templates to a few orientations per pattern that are truly distinct."""

import numba
import numpy as np

from fourdstem import jit  # noqa: F401  compiled code is cached safely


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
    wanted = found[1].shape[1]
    near = np.cos(distinct / 2)
    value = np.empty(templates * 2 * peaks, np.float32)
    heap = np.empty(len(value), np.int32)
    for b in range(patterns):
        if not usable[b]:
            continue
        _fill(peak_score, b, value)
        left = _heapify(heap, value)
        taken = 0
        # Equivalents of the candidates taken so far.
        images = np.empty((wanted, len(operations), 4))
        while taken < wanted and left > 0 and value[heap[0]] > 0:
            entry = heap[0]
            left = _drop_top(heap, value, left)
            t, mirror, peak = entry // (2 * peaks), entry // peaks % 2, entry % peaks
            q = turned(quaternion[mirror, t], 2 * np.pi * place[t, mirror, peak, b] / azimuths)
            if _is_new(q, phase[t], found[1][b, :taken], images, start, near):
                found[1][b, taken], found[2][b, taken] = phase[t], value[entry]
                own = operations[start[phase[t]] : start[phase[t] + 1]]
                for k in range(4):  # assigning an array to an array takes numba seconds to compile
                    found[0][b, taken, k] = q[k]
                for o in range(len(own)):
                    image = times(own[o], q)
                    for k in range(4):
                        images[taken, o, k] = image[k]
                taken += 1


@numba.njit(nogil=True, cache=True)
def _fill(score, pattern, value):
    at = 0
    for t in range(score.shape[0]):
        for mirror in range(2):
            for peak in range(score.shape[2]):
                value[at] = score[t, mirror, peak, pattern]
                at += 1


@numba.njit(nogil=True, cache=True)
def _is_new(q, phase, phases, images, start, near):
    count = start[phase + 1] - start[phase]
    for c in range(len(phases)):
        if phases[c] == phase:
            for o in range(count):
                p = images[c, o]
                if abs(p[0] * q[0] + p[1] * q[1] + p[2] * q[2] + p[3] * q[3]) > near:
                    return False
    return True


@numba.njit(nogil=True, cache=True)
def _heapify(heap, value):
    """Order all indices of ``value`` as a heap, largest (of equals the first) on top; their number."""
    for i in range(len(heap)):
        heap[i] = i
    for i in range(len(heap) // 2 - 1, -1, -1):
        _sink(heap, value, i, len(heap))
    return len(heap)


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
    return np.array([c * q[0] + s * q[3], c * q[1] - s * q[2], c * q[2] + s * q[1], c * q[3] - s * q[0]])


@numba.njit(nogil=True, cache=True)
def times(a, b):
    """Quaternion product a b."""
    return np.array(
        [
            a[0] * b[0] - a[1] * b[1] - a[2] * b[2] - a[3] * b[3],
            a[0] * b[1] + a[1] * b[0] + a[2] * b[3] - a[3] * b[2],
            a[0] * b[2] - a[1] * b[3] + a[2] * b[0] + a[3] * b[1],
            a[0] * b[3] + a[1] * b[2] - a[2] * b[1] + a[3] * b[0],
        ]
    )
