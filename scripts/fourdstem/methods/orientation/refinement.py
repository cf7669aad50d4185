"""Candidates turned off the grid, and ranked anew.

A template here is a list of disks: their places follow from the orientation, their amplitudes are intensities (see
`templates`) raised to a power. Pattern B: counts, averaged over half a disk's radius, raised to the power, freed of
the mean of every ring of pixels; K: a disk a little larger than the beam. With D = B convolved with K::

    Q = Σ a_i D(x_i) / (‖B‖ ‖T‖ c)

‖B‖ runs over the whole pattern outside the direct beam, so that what no disk explains lowers Q. ‖T‖ counts what
lies on valid pixels and takes the ring means away, the disks of one ring together. c is what B and K of one disk
alone reach. Disks are taken not to overlap: where they do, Q is too large and is clipped to 1. The three angles
are searched by steps along the lab axes, halved whenever none of them helps.
"""

import numba
import numpy as np

from fourdstem.methods.orientation.candidates import distinct
from fourdstem.methods.orientation.spots import Spots, convolve

# Steps of the search: tilts in eight directions, turns about the beam. Ridges run between the axes.
_AXES = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [1, -1, 0]]) / np.sqrt([[1], [1], [1], [2], [2]])
_AXES = np.concatenate([_AXES, -_AXES])
# The search ends at this step, fine for the best candidate, or after so many templates.
_COARSE, _FINE = np.deg2rad(0.1), np.deg2rad(0.02)
_EVALUATIONS = 150


def refine(pattern, spots: Spots, step: float, symmetry: tuple, wanted: int, quaternion, phase, score) -> None:
    """Turn the candidates of one pattern to where they fit best; sort them, drop those that have met.

    Parameters
    ----------
    pattern : ndarray of float32, shape (detector_y, detector_x)
    spots : Spots
    step : float
        First step of the search, rad.
    symmetry : tuple
        operations (m, 4), start (phases + 1,) and the angle in rad by which candidates must differ.
    wanted : int
        Candidates beyond this number are spare: refined only to take the place of dropped ones.
    quaternion, phase, score : ndarray of shape (candidates, 4), (candidates,), (candidates,)
        Changed. Phase -1 = no candidate: score and quaternion become NaN.
    """
    explained, norm = prepare(pattern, spots)

    def climb(c, first, finest, final):
        part = slice(spots.start[phase[c]], spots.start[phase[c] + 1])
        near = _near(quaternion[c], spots.g[part], spots.optics)
        reflections = spots.g[part][near], spots.amplitude[final, part][near], spots.row[part][near]
        reflections = *reflections, spots.table[final], spots.optics
        return search(quaternion[c], first, finest, spots.reach, *reflections, explained, spots.seen, spots.per_ring)

    def refine_to(first, last):
        for c in range(first, last):
            if phase[c] >= 0:
                quaternion[c], found = climb(c, step, _COARSE, 0)
                score[c] = min(max(found / (norm * spots.best), 0.0), 1.0)
        return _rank(quaternion[:last], phase[:last], score[:last], symmetry)

    if norm == 0:
        return
    done = min(wanted, len(phase))
    kept = refine_to(0, done)
    if phase[0] >= 0 and done < len(phase):
        # Half a turn about the beam changes a pattern least of all turns: the best candidate's is always tried.
        w, x, y, z = quaternion[0]
        quaternion[-1], phase[-1] = quaternion[done], phase[done]
        quaternion[done], phase[done] = (-z, y, -x, w), phase[0]
        done += 1
        kept = refine_to(done - 1, done)
    while kept < wanted and done < len(phase):
        first, done = done, min(done + wanted - kept, len(phase))
        kept = refine_to(first, done)
    _blank(wanted, quaternion, phase, score)
    if phase[0] >= 0:
        quaternion[0], _ = climb(0, 2 * _COARSE, _FINE, 1)


def _rank(quaternion, phase, score, symmetry) -> int:
    """Sort candidates, blank those that are not distinct from a better one; the number of those left."""
    order = np.argsort(-np.where(phase >= 0, score, -1), kind="stable")
    quaternion[:], phase[:], score[:] = quaternion[order], phase[order], score[order]
    kept = distinct(quaternion, phase, *symmetry)
    order = np.argsort(~kept, kind="stable")
    quaternion[:], phase[:], score[:] = quaternion[order], phase[order], score[order]
    count = int(kept.sum())
    _blank(count, quaternion, phase, score)
    return count


def _blank(first, quaternion, phase, score) -> None:
    quaternion[first:], phase[first:], score[first:] = np.nan, -1, np.nan


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
    total, count = np.zeros(ring.max() + 2), np.zeros(ring.max() + 2)
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
def _near(quaternion, g, optics):
    """Reflections that the tabulated relrods reach, or would after a turn by the largest step of a grid (0.1 rad)."""
    m = _matrix(quaternion)
    keep = np.zeros(len(g), np.bool_)
    for i in range(len(g)):
        z = m[0, 2] * g[i, 0] + m[1, 2] * g[i, 1] + m[2, 2] * g[i, 2]
        flat = g[i, 0] ** 2 + g[i, 1] ** 2 + g[i, 2] ** 2
        keep[i] = abs(z + flat / (2 * optics[1])) < optics[0] + 0.1 * np.sqrt(flat)
    return keep


@numba.njit(nogil=True, cache=True)
def search(quaternion, step, finest, reach, g, amplitude, row, table, optics, explained, seen, per_ring):
    """Climb by steps in rad that end at ``finest``, no farther than ``reach`` first steps; the best found, Q ‖B‖ c."""
    q = quaternion.astype(np.float64)
    best = match(q, g, amplitude, row, table, optics, explained, seen, per_ring)
    done, nearest = 1, np.cos(reach * step / 2)
    while step >= finest and done < _EVALUATIONS:
        # The best of all directions, not the first that helps: a turned pattern then climbs the turned way.
        here, moved = q, False
        for axis in _AXES:
            trial = _rotated(here, axis, step)
            if abs((trial * quaternion).sum()) < nearest:
                continue
            value = match(trial, g, amplitude, row, table, optics, explained, seen, per_ring)
            done += 1
            if value > best:
                q, best, moved = trial, value, True
        if not moved:
            step /= 2
    return q, best


@numba.njit(nogil=True, cache=True)
def match(quaternion, g, amplitude, row, table, optics, explained, seen, per_ring):
    """Q ‖B‖ c of one orientation; 0 where the pattern would show none of its reflections."""
    s_max, wavenumber, pixel, r_min, r_max = optics
    m = _matrix(quaternion)
    ny, nx = explained.shape
    ring = np.zeros(len(per_ring))
    product, norm2 = 0.0, 0.0
    for i in range(len(g)):
        gx = m[0, 0] * g[i, 0] + m[1, 0] * g[i, 1] + m[2, 0] * g[i, 2]
        gy = m[0, 1] * g[i, 0] + m[1, 1] * g[i, 1] + m[2, 1] * g[i, 2]
        gz = m[0, 2] * g[i, 0] + m[1, 2] * g[i, 1] + m[2, 2] * g[i, 2]
        flat2 = gx * gx + gy * gy
        radius = np.sqrt(flat2) / pixel
        after = np.sqrt(flat2 + (wavenumber + gz) ** 2)
        place = ((wavenumber * wavenumber - after * after) / (2 * after) / s_max + 1) * (table.shape[1] - 1) / 2
        y, x = (ny - 1) / 2 + gy / pixel, (nx - 1) / 2 + gx / pixel
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
    total = 0.0
    for i, weight in enumerate(_weights(v)):
        row = image[y0 - 1 + i]
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
