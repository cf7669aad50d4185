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

from dataclasses import replace

import numba
import numpy as np

from fourdstem.methods.orientation.candidates import distinct
from fourdstem.methods.orientation.spots import Spots, convolve

# Steps of the search: tilts in eight directions, turns about the beam. Ridges run between the axes.
_AXES = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [1, -1, 0]]) / np.sqrt([[1], [1], [1], [2], [2]])
_AXES = np.concatenate([_AXES, -_AXES])
# The search ends at this step, fine for the best candidate, or after so many rounds; steps shrink by this factor.
_COARSE, _FINE = np.deg2rad(0.1), np.deg2rad(0.02)
_ROUNDS, _SHRINK = 12, 0.4


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
    final = replace(spots, power=spots.final)
    for pattern, *found in zip(patterns, quaternion, phase, score, strict=True):
        if found[1][0] >= 0:
            explained, norm = prepare(pattern, spots)
            if norm > 0:
                limits = step, spots.reach, norm * spots.best
                _choose(tuple(found), wanted, limits, rods, (explained, spots.seen, spots.per_ring), symmetry)
                if spots.final != spots.power:
                    explained, _ = prepare(pattern, final)
                _settle(found[0], found[1], spots.reach, rods, (explained, spots.seen, spots.per_ring))


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
        _climb(quaternion[0], phase[0], 1, (2 * _COARSE, _FINE, reach), rods, detector)


@numba.njit(nogil=True, cache=True)
def _refine_to(first, last, found, limits, rods, detector, symmetry):
    """Turn candidates ``first`` to ``last`` - 1, rank all before ``last``; the number of those left."""
    quaternion, phase, score = found
    for c in range(first, last):
        if phase[c] >= 0:
            value = _climb(quaternion[c], phase[c], 0, (limits[0], _COARSE, limits[1]), rods, detector)
            score[c] = min(max(value / limits[2], 0.0), 1.0)
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


@numba.njit(nogil=True, cache=True)
def _climb(quaternion, phase, final, steps, rods, detector):
    """Turn a quaternion, in place, to the best template near; that template's Q ‖B‖ c. ``final``: which powers."""
    start, g, amplitude, row, table, s_max, (wavenumber, pixel, r_min, r_max) = rods
    optics = s_max[phase], wavenumber, pixel, r_min, r_max
    first, last = start[phase], start[phase + 1]
    near = _near(quaternion, g[first:last], optics, steps[0] * steps[2])
    where, strength, rows = np.empty((len(near), 4)), np.empty(len(near)), np.empty(len(near), np.int64)
    for i, n in enumerate(near):
        n += first
        for k in range(3):
            where[i, k] = g[n, k]
        where[i, 3] = g[n, 0] ** 2 + g[n, 1] ** 2 + g[n, 2] ** 2
        strength[i], rows[i] = amplitude[final, n], row[n]
    q, value = search(quaternion, steps, (where, strength, rows, table[final], optics), detector)
    for k in range(4):
        quaternion[k] = q[k]
    return value


def prepare(pattern: np.ndarray, spots: Spots) -> tuple[np.ndarray, float]:
    """D of the module docstring (float32, like ``pattern``) and ‖B‖."""
    shown, explained = np.empty_like(pattern), np.empty_like(pattern)
    convolve(pattern * spots.inside, spots.box, shown)
    norm = flatten(shown, spots.weight, spots.ring, spots.power)
    convolve(shown, spots.disk, explained)
    return explained, norm


@numba.njit(nogil=True, cache=True)
def flatten(sums, weight, ring, power):
    """Raise ``sums`` times ``weight`` to the power and take ring means away, in place; 0 where ring is -1. ‖B‖."""
    # Ring -1 is the last entry here.
    last = 0
    for y in range(ring.shape[0]):
        for x in range(ring.shape[1]):
            last = max(last, ring[y, x])
    total, count = np.zeros(last + 2), np.zeros(last + 2)
    whole = 0.0
    for y in range(sums.shape[0]):
        values, scale, rings = sums[y], weight[y], ring[y]
        for x in range(len(values)):
            values[x] = max(values[x], np.float32(0)) * scale[x]
        if power == 0.25:  # square roots are vector instructions, powers are not
            for x in range(len(values)):
                values[x] = np.sqrt(np.sqrt(values[x]))
        else:
            for x in range(len(values)):
                values[x] = values[x] ** np.float32(power)
        for x in range(len(values)):
            total[rings[x]] += values[x]
            count[rings[x]] += 1
            whole += np.float64(values[x]) ** 2
    mean = total / np.maximum(count, 1)
    energy = whole - (total * mean).sum()
    for y in range(sums.shape[0]):
        for x in range(sums.shape[1]):
            sums[y, x] -= mean[ring[y, x]]
    return np.sqrt(energy) if energy > 1e-12 * whole else 0.0


@numba.njit(nogil=True, cache=True)
def _near(quaternion, g, optics, angle):
    """Reflections that the tabulated relrods reach, or would after a turn by an angle in rad."""
    m = _matrix(quaternion)
    keep, count = np.empty(len(g), np.int64), 0
    for i in range(len(g)):
        z = m[0, 2] * g[i, 0] + m[1, 2] * g[i, 1] + m[2, 2] * g[i, 2]
        flat = g[i, 0] ** 2 + g[i, 1] ** 2 + g[i, 2] ** 2
        if abs(z + flat / (2 * optics[1])) < optics[0] + 1.1 * angle * np.sqrt(flat):
            keep[count] = i
            count += 1
    return keep[:count]


@numba.njit(nogil=True, cache=True)
def search(quaternion, steps, reflections, detector):
    """Climb to the best template near an orientation.

    Each round looks a step away in ten directions, and at the top of the parabola through what it saw.

    Parameters
    ----------
    quaternion : ndarray of shape (4,)
    steps : tuple of float
        First step and the one that ends the search, rad; first steps that it may go.
    reflections : tuple
        g and its square (n, 4), amplitude, row, table, s_max with optics: see `Spots`.
    detector : tuple of ndarray
        D, seen, per_ring.

    Returns
    -------
    quaternion : ndarray of shape (4,)
    value : float
        Q ‖B‖ c.
    """
    step, finest, reach = steps
    room = np.empty((4, len(reflections[0]))), np.empty(len(detector[2]))
    q = quaternion.astype(np.float64)
    best = match(q, reflections, detector, room)
    nearest, value = np.cos(reach * step / 2), np.empty(len(_AXES))
    for _ in range(_ROUNDS):
        if step < finest:
            break
        # The best of all directions, not the first that helps: a turned pattern then climbs the turned way.
        here, middle, moved = q, best, False
        for i, axis in enumerate(_AXES):
            trial = _rotated(here, axis, step)
            value[i] = match(trial, reflections, detector, room)
            if value[i] > best and abs((trial * quaternion).sum()) >= nearest:
                q, best, moved = trial, value[i], True
        top = _top(middle, value)
        far = np.sqrt((top**2).sum())
        if far > 0:
            trial = _rotated(here, top / far, far * step)
            found = match(trial, reflections, detector, room)
            if found > best and abs((trial * quaternion).sum()) >= nearest:
                q, best, moved = trial, found, far > 1
        if not moved:
            step *= _SHRINK
    return q, best


@numba.njit(nogil=True, cache=True)
def _top(middle, value):
    """Where a parabola in the two tilts and another in the turn have their tops, in steps, at most two away."""
    top, bend, slope = np.zeros(3), np.empty(5), np.empty(3)
    for i in range(5):
        bend[i] = value[i] + value[i + 5] - 2 * middle
    for i in range(3):
        slope[i] = (value[i] - value[i + 5]) / 2
    # Along a diagonal the second derivative is half the sum of both, plus or minus the mixed one.
    xx, yy, xy = bend[0], bend[1], (bend[3] - bend[4]) / 2
    determinant = xx * yy - xy * xy
    if xx + yy < 0 and determinant > 0.01 * xx * yy:
        top[0] = (xy * slope[1] - yy * slope[0]) / determinant
        top[1] = (xy * slope[0] - xx * slope[1]) / determinant
    if bend[2] < 0:
        top[2] = -slope[2] / bend[2]
    far = np.sqrt((top**2).sum())
    return top * min(1.0, 2.0 / far) if far > 0 else top


@numba.njit(nogil=True, cache=True)
def match(quaternion, reflections, detector, room):
    """Q ‖B‖ c of one orientation; 0 where the pattern would show none of its reflections."""
    (g, amplitude, row, table, optics), (explained, seen, per_ring), (places, ring) = reflections, detector, room
    s_max, wavenumber, pixel, r_min, r_max = optics
    m = _matrix(quaternion)
    ny, nx = explained.shape
    middle, scale = (table.shape[1] - 1) / 2, 1 / pixel
    for i in range(len(g)):  # without branches, so that vectors can be used
        gz = m[0, 2] * g[i, 0] + m[1, 2] * g[i, 1] + m[2, 2] * g[i, 2]
        gy = m[0, 1] * g[i, 0] + m[1, 1] * g[i, 1] + m[2, 1] * g[i, 2]
        gx = m[0, 0] * g[i, 0] + m[1, 0] * g[i, 1] + m[2, 0] * g[i, 2]
        # s = (k² - |k + g|²) / (2 |k + g|), |k + g|² = k² + 2 k g_z + g²
        more = 2 * wavenumber * gz + g[i, 3]
        places[0, i] = (1 - more / (2 * np.sqrt(wavenumber * wavenumber + more)) / s_max) * middle
        places[1, i], places[2, i] = (ny - 1) / 2 + gy * scale, (nx - 1) / 2 + gx * scale
        places[3, i] = np.sqrt(gx * gx + gy * gy) * scale
    ring[:] = 0
    product, norm2 = 0.0, 0.0
    for i in range(len(g)):
        place, y, x, radius = places[0, i], places[1, i], places[2, i], places[3, i]
        if radius < r_min or radius > r_max or not 0 <= place < table.shape[1] - 1:
            continue
        if not (1 <= y < ny - 2 and 1 <= x < nx - 2):
            continue
        s, part = int(place), place - int(place)
        a = amplitude[i] * (table[row[i], s] * (1 - part) + table[row[i], s + 1] * part)
        pixels = seen[int(y + 0.5), int(x + 0.5)]
        product += a * _cubic(explained, y, x)
        norm2 += a * a * pixels
        ring[int(radius)] += a * pixels
    for r in range(len(ring)):
        if ring[r] > 0 and per_ring[r] > 0:
            norm2 -= ring[r] ** 2 / per_ring[r]
    return product / np.sqrt(norm2) if norm2 > 1e-12 else 0.0


@numba.njit(nogil=True, cache=True)
def _matrix(q):
    w, x, y, z = q
    m = np.empty((3, 3))
    m[0, 0], m[0, 1], m[0, 2] = 1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)
    m[1, 0], m[1, 1], m[1, 2] = 2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)
    m[2, 0], m[2, 1], m[2, 2] = 2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)
    return m


@numba.njit(nogil=True, cache=True)
def _cubic(image, y, x):
    """Value between pixels, by Catmull and Rom's cubic: linear interpolation would draw disks to pixel centres."""
    y0, x0 = int(y), int(x)
    v, u = y - y0, x - x0
    a, b, c, d = _weights(u)
    above, upper, lower, below = _weights(v)
    total = 0.0
    for i, weight in ((-1, above), (0, upper), (1, lower), (2, below)):
        row = image[y0 + i]
        total += weight * (a * row[x0 - 1] + b * row[x0] + c * row[x0 + 1] + d * row[x0 + 2])
    return total


@numba.njit(nogil=True, cache=True)
def _weights(u):
    return (
        u * (u * (1 - 0.5 * u) - 0.5),
        u * u * (1.5 * u - 2.5) + 1,
        u * (u * (2 - 1.5 * u) + 0.5),
        u * u * (0.5 * u - 0.5),
    )


@numba.njit(nogil=True, cache=True)
def _rotated(q, axis, angle):
    """q times a rotation by an angle about a lab axis (x, y, z)."""
    c, (x, y, z) = np.cos(angle / 2), np.sin(angle / 2) * axis
    return np.array(
        [
            q[0] * c - q[1] * x - q[2] * y - q[3] * z,
            q[0] * x + q[1] * c + q[2] * z - q[3] * y,
            q[0] * y - q[1] * z + q[2] * c + q[3] * x,
            q[0] * z + q[1] * y - q[2] * x + q[3] * c,
        ]
    )
