"""The climb from an orientation to the best template near it.

A template is a list of disks (see `refinement`): Σ a_i D(x_i) / ‖T‖ is to be as large as possible. Each round looks a
step away in ten directions. A tilt changes the excitation errors, hence the amplitudes a, and moves the disks of an
electron pattern by its step times g_z, which is a hundredth of a pixel: for the tilts of a round the disks stay where
they are. A turn about the beam moves the disks and changes no amplitude. So what ten templates would cost one costs a
tenth, and only where a round ends is a template made as a whole.
"""

import numba
import numpy as np

from fourdstem import jit  # noqa: F401  compiled code is cached safely
from fourdstem.methods.orientation.vectors import TILTED, TILTS, spline, tilts

# Steps of the search: tilts in eight directions, turns about the beam.
_AXES = np.zeros((TILTS + 2, 3))
_AXES[:TILTS, :2] = TILTED.T
_AXES[TILTS:, 2] = 1, -1
# Rounds after which the search ends at the latest; steps shrink by this factor.
_ROUNDS, _SHRINK = 12, 0.4
# Of the numbers that are kept of each disk that a pattern shows: x, y and z of g, its square, amplitude at the Bragg
# condition, amplitude, D, squared norm on pixels that count.
_KEPT = 8


@numba.njit(nogil=True, cache=True)
def climb(quaternion, phase, final, steps, rods, detector):
    """Turn a quaternion, in place, to the best template near; that template's Q ‖B‖ c. ``final``: which powers."""
    start, g, amplitude, row, table, s_max, (wavenumber, pixel, r_min, r_max) = rods
    optics = s_max[phase], wavenumber, pixel, r_min, r_max
    first, last = start[phase], start[phase + 1]
    near = _near(quaternion, g[first:last], optics, steps[0] * steps[2])
    where, rows = np.empty((5, len(near))), np.empty(len(near), np.int64)
    for i, n in enumerate(near):
        n += first
        for k in range(3):
            where[k, i] = g[n, k]
        where[3, i] = g[n, 0] ** 2 + g[n, 1] ** 2 + g[n, 2] ** 2
        where[4, i], rows[i] = amplitude[final, n], row[n]
    q, value = search(quaternion, steps, (where, rows, table[final], optics), detector)
    for k in range(4):
        quaternion[k] = q[k]
    return value


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
        First step and the one that ends the search, rad; first steps that it may go; a value below which the search
        ends where it would go on by shorter steps.
    reflections : tuple
        g, its square, amplitude (5, n), row, table, s_max with optics: see `Spots`.
    detector : tuple of ndarray
        D, seen, per_ring.

    Returns
    -------
    quaternion : ndarray of shape (4,)
    value : float
        Q ‖B‖ c.
    """
    step, finest, reach, enough = steps
    room = _room(reflections, detector)
    here, there = _shown(reflections), _shown(reflections)
    q = quaternion.astype(np.float64)
    best = match(q, reflections, detector, here, room)
    nearest, value = np.cos(reach * step / 2), np.empty(len(_AXES))
    for _ in range(_ROUNDS):
        if step < finest:
            break
        tilted(here, step, reflections, room[2], value)
        turned(here, step, reflections, detector, room[2], value)
        direction, highest = _best_direction(q, best, value, step, quaternion, nearest)
        top = _top(best, value)
        far, moved, found = np.sqrt((top**2).sum()), direction >= 0, best
        trial = _rotated(q, top / max(far, 1e-30), far * step)
        if far > 0 and abs((trial * quaternion).sum()) >= nearest:
            found = match(trial, reflections, detector, there, room)
        if found > highest:
            moved = far > 1
        elif moved:
            trial = _rotated(q, _AXES[direction], step)
            found = match(trial, reflections, detector, there, room)
            moved = found > best
        if found > best:
            q, best, here, there = trial, found, there, here
        if not moved:
            step = step * _SHRINK if best >= enough else 0.0
    return q, best


@numba.njit(nogil=True, cache=True)
def _best_direction(q, best, value, step, start, nearest):
    """Direction of the highest value above ``best`` that is not too far from where the search began (-1), and value.

    The best of all directions, not the first that helps: a turned pattern then climbs the turned way.
    """
    direction = -1
    for i in range(len(value)):
        if value[i] > best and abs((_rotated(q, _AXES[i], step) * start).sum()) >= nearest:
            direction, best = i, value[i]
    return direction, best


@numba.njit(nogil=True, cache=True)
def _room(reflections, detector):
    """Places of reflections; the slot of each ring, -1: it has none; sums over tilts."""
    n = reflections[0].shape[1]
    return np.empty((5, n)), np.full(len(detector[2]), -1), np.empty((2 + n, TILTS))


@numba.njit(nogil=True, cache=True)
def _shown(reflections):
    """Room for the disks that a pattern shows.

    Their number, and that of the rings on which they lie, each of which has a slot; `_KEPT` numbers of each disk; its
    row and slot, and the ring of each slot; what a slot's squared sum is multiplied by.
    """
    n = reflections[0].shape[1]
    return np.zeros(2, np.int64), np.empty((n, _KEPT)), np.empty((n, 3), np.int64), np.empty(n)


@numba.njit(nogil=True, cache=True)
def tilted(shown, step, reflections, sums, value):
    """Fill ``value[:TILTS]`` with Q ‖B‖ c after a step of tilt in each of the directions `TILTED`."""
    (number, kept, index, share), (_, _, table, (s_max, wavenumber, _, _, _)) = shown, reflections
    entries = table.shape[1]
    last = entries - 1.0
    factor, c, s = wavenumber * last / (4 * s_max), np.cos(step), np.sin(step)
    for slot in range(2 + number[1]):
        for k in range(TILTS):
            sums[slot, k] = 0
    for i in range(number[0]):
        by_tilt = 2 * s / wavenumber
        x = (2 * wavenumber * kept[i, 2] * c + kept[i, 3]) / wavenumber**2
        more = x, -by_tilt * kept[i, 1], by_tilt * kept[i, 0]
        at = index[i, 0] * entries
        tilts(table, at, last, more, factor, kept[i, 4], kept[i, 6], kept[i, 7], index[i, 1], sums)
    for slot in range(number[1]):
        for k in range(TILTS):
            sums[1, k] -= sums[2 + slot, k] ** 2 * share[slot]
    for k in range(TILTS):
        value[k] = sums[0, k] / np.sqrt(sums[1, k]) if sums[1, k] > 1e-12 else 0.0


@numba.njit(nogil=True, cache=True)
def turned(shown, step, reflections, detector, sums, value):
    """Fill ``value[TILTS:]`` with Q ‖B‖ c after a step of turn about the beam either way."""
    (number, kept, index, share), (explained, seen, _) = shown, detector
    pixel = reflections[3][2]
    ny, nx = explained.shape
    c, s = np.cos(step) / pixel, np.sin(step) / pixel
    for way in range(2):
        product, norm2 = 0.0, 0.0
        for slot in range(number[1]):
            sums[slot, 0] = 0
        for i in range(number[0]):
            gx, gy, a = kept[i, 0], kept[i, 1], kept[i, 5]
            y, x = (ny - 1) / 2 + gy * c - gx * s, (nx - 1) / 2 + gx * c + gy * s
            if a > 0 and 1 <= y < ny - 2 and 1 <= x < nx - 2:
                weight = a * seen[int(y + 0.5), int(x + 0.5)]
                product += a * between(explained, y, x)
                norm2 += a * weight
                sums[index[i, 1], 0] += weight
        for slot in range(number[1]):
            norm2 -= sums[slot, 0] ** 2 * share[slot]
        value[TILTS + way] = product / np.sqrt(norm2) if norm2 > 1e-12 else 0.0
        s = -s


@numba.njit(nogil=True, cache=True)
def _top(middle, value):
    """Where a parabola in the two tilts and another in the turn have their tops, in steps, at most two away."""
    top, bend, slope = np.zeros(3), np.empty(5), np.empty(5)
    for i in range(5):
        forth, back = (value[i], value[i + 4]) if i < 4 else (value[8], value[9])
        bend[i], slope[i] = forth + back - 2 * middle, (forth - back) / 2
    # Along a diagonal the second derivative is half the sum of both, plus or minus the mixed one.
    xx, yy, xy = bend[0], bend[1], (bend[2] - bend[3]) / 2
    determinant = xx * yy - xy * xy
    if xx + yy < 0 and determinant > 0.01 * xx * yy:
        top[0] = (xy * slope[1] - yy * slope[0]) / determinant
        top[1] = (xy * slope[0] - xx * slope[1]) / determinant
    if bend[4] < 0:
        top[2] = -slope[4] / bend[4]
    far = np.sqrt((top**2).sum())
    return top * min(1.0, 2.0 / far) if far > 0 else top


@numba.njit(nogil=True, cache=True)
def match(quaternion, reflections, detector, shown, room):
    """Q ‖B‖ c of one orientation; 0 where the pattern would show none of its reflections. Fills ``shown``."""
    (g, row, table, optics), (explained, seen, per_ring) = reflections, detector
    (number, kept, index, share), (lab, slots, sums) = shown, room
    _, _, pixel, r_min, r_max = optics
    ny, nx = explained.shape
    last, scale = table.shape[1] - 1, 1 / pixel
    _place(quaternion, g, optics, last, lab)
    product, norm2, count, rings = 0.0, 0.0, 0, 0
    for i in range(g.shape[1]):
        radius, place = lab[3, i], lab[4, i]
        y, x = (ny - 1) / 2 + lab[1, i] * scale, (nx - 1) / 2 + lab[0, i] * scale
        if radius < r_min or radius > r_max or not (1 <= y < ny - 2 and 1 <= x < nx - 2):
            continue
        a = 0.0
        if 0 <= place < last:
            s, part = int(place), place - int(place)
            a = g[4, i] * (table[row[i], s] * (1 - part) + table[row[i], s + 1] * part)
        d, pixels, ring = between(explained, y, x), seen[int(y + 0.5), int(x + 0.5)], int(radius)
        if slots[ring] < 0:
            slots[ring], index[rings, 2], sums[rings, 0] = rings, ring, 0
            share[rings] = 1 / per_ring[ring] if per_ring[ring] > 0 else 0.0
            rings += 1
        for k in range(3):
            kept[count, k] = lab[k, i]
        kept[count, 3], kept[count, 4], kept[count, 5], kept[count, 6], kept[count, 7] = g[3, i], g[4, i], a, d, pixels
        index[count, 0], index[count, 1] = row[i], slots[ring]
        count += 1
        product += a * d
        norm2 += a * a * pixels
        sums[slots[ring], 0] += a * pixels
    number[0], number[1] = count, rings
    for slot in range(rings):
        norm2 -= sums[slot, 0] ** 2 * share[slot]
        slots[index[slot, 2]] = -1
    return product / np.sqrt(norm2) if norm2 > 1e-12 else 0.0


@numba.njit(nogil=True, cache=True)
def _place(quaternion, g, optics, last, lab):
    """Fill ``lab`` with x, y, z of g, its radius in px, and where it lies in a table whose last entry is ``last``."""
    s_max, wavenumber, pixel, _, _ = optics
    m = _matrix(quaternion)
    middle, scale = last / 2, 1 / pixel
    for i in range(g.shape[1]):  # without branches, so that vectors can be used
        gz = m[0, 2] * g[0, i] + m[1, 2] * g[1, i] + m[2, 2] * g[2, i]
        gy = m[0, 1] * g[0, i] + m[1, 1] * g[1, i] + m[2, 1] * g[2, i]
        gx = m[0, 0] * g[0, i] + m[1, 0] * g[1, i] + m[2, 0] * g[2, i]
        # s = (k² - |k + g|²) / (2 |k + g|), |k + g|² = k² + 2 k g_z + g²
        more = 2 * wavenumber * gz + g[3, i]
        lab[0, i], lab[1, i], lab[2, i] = gx, gy, gz
        lab[3, i] = np.sqrt(gx * gx + gy * gy) * scale
        lab[4, i] = (1 - more / (2 * np.sqrt(wavenumber * wavenumber + more)) / s_max) * middle


@numba.njit(nogil=True, cache=True)
def _matrix(q):
    w, x, y, z = q
    m = np.empty((3, 3))
    m[0, 0], m[0, 1], m[0, 2] = 1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)
    m[1, 0], m[1, 1], m[1, 2] = 2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)
    m[2, 0], m[2, 1], m[2, 2] = 2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)
    return m


@numba.njit(nogil=True, cache=True)
def between(image, y, x):
    """Value between pixels, by Catmull and Rom's cubic: linear interpolation would draw disks to pixel centres."""
    y0, x0 = int(y), int(x)
    return spline(image, y0 * image.shape[1] + x0, image.shape[1], y - y0, x - x0)


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
