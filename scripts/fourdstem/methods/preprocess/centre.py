"""Where the direct beam is in each pattern, and how well that is known."""

import numba
import numpy as np
from scipy import fft

from fourdstem.methods.preprocess.beam import STEP_PX, fast_shape
from fourdstem.methods.preprocess.friedel import locate_inversion
from fourdstem.methods.preprocess.uneven import level

BEAM_SIGMA = 5.0  # a beam must stand out of the background by so many standard deviations
SETTLED_PX = 2e-3


def locate(patterns, finder, predicted, method: str = "disk_correlation"):
    """Find the beam in the patterns of a unit.

    Parameters
    ----------
    patterns : ndarray of float32, shape (n, detector_y, detector_x)
        Repaired; unusable pixels are at ``noise.floor``.
    finder : search.Finder
    predicted : ndarray of shape (n, 2)
        Where the beam is expected, px.
    method : {"disk_correlation", "centre_of_mass", "blurred_maximum", "friedel"}
        The second and third climb alike, from the maximum of the correlation and of the blurred pattern.

    Returns
    -------
    ndarray of float64, shape (n, 4)
        y, x (px), their standard deviation per axis (px), and all counts above the floor. The first three are
        NaN where no beam stands out: the pattern is dark, or diffraction leaves nothing in the direct beam.
    """
    out = np.full((len(patterns), 4), np.nan)
    noise = (finder.noise.floor, finder.noise.slope, finder.noise.dark)
    for i, pattern in enumerate(patterns):
        seed = _seed(pattern, finder, finder.blur if method == "blurred_maximum" else finder.spectrum, predicted[i])
        if method == "friedel":
            locate_inversion(pattern, seed, finder.beam.radius_px, finder.noise, out[i])
        elif method in ("centre_of_mass", "blurred_maximum"):
            centre_of_mass(pattern, seed, finder.beam.radius_px, finder.beam.edge_px, *noise, out[i])
        else:
            refine(pattern, seed, finder.table, STEP_PX, *noise, out[i])
            if finder.spread > 0 and np.isfinite(out[i, 2]):
                _allow_slope(pattern, finder, out[i])
        signal, sigma = beam_counts(pattern, out[i, :2], finder.beam.radius_px, *noise)
        out[i, 3] = pattern.sum(dtype=np.float64) - finder.noise.floor * pattern.size
        lost = not np.isfinite(out[i, 2]) or np.abs(out[i, :2] - seed).max() > finder.beam.radius_px + 2
        if lost or signal < BEAM_SIGMA * sigma:
            out[i, :3] = np.nan
    return out


def _allow_slope(pattern, finder, out) -> None:
    """Put the centre with a slope of brightness in place of that without, unless it is not of the same disk."""
    found = level(pattern, out[:2], finder, finder.spread)
    if np.isfinite(found).all() and np.hypot(*(found[:2] - out[:2])) < 0.5 * finder.beam.radius_px:
        out[:3] = found[0], found[1], found[4]


def _seed(pattern, finder, kernel, predicted):
    """Integer maximum of the correlation with a kernel, given by its spectrum, near where the beam is expected."""
    padded = fast_shape(pattern.shape)
    spectrum = fft.rfft2(pattern - np.float32(finder.noise.floor), padded, workers=1)
    image = fft.irfft2(spectrum * kernel, padded, workers=1)
    limit = np.array(pattern.shape) - 1
    y0, x0 = np.clip(np.floor(predicted - finder.half_width_px), 0, limit).astype(int)
    y1, x1 = np.clip(np.ceil(predicted + finder.half_width_px), 0, limit).astype(int) + 1
    y, x = np.unravel_index(np.argmax(image[y0:y1, x0:x1]), (y1 - y0, x1 - x0))
    return np.array([y0 + y, x0 + x], float)


def mass(patterns, noise) -> np.ndarray:
    """Centre of mass (n, 2) of all counts above the floor, px; NaN where those do not stand out of their noise."""
    out = np.full((len(patterns), 2), np.nan)
    for i, pattern in enumerate(patterns):
        rows = pattern.sum(axis=1, dtype=np.float64) - noise.floor * pattern.shape[1]
        columns = pattern.sum(axis=0, dtype=np.float64) - noise.floor * pattern.shape[0]
        total = rows.sum()
        if total > BEAM_SIGMA * np.sqrt(noise.slope * max(total, 0.0) + noise.dark * pattern.size):
            out[i] = rows @ np.arange(len(rows)) / total, columns @ np.arange(len(columns)) / total
    return out


@numba.njit(nogil=True, cache=True)
def _evaluate(pattern, cy, cx, table, step, floor, slope, dark, sums):
    """Value, gradient (2), curvature (yy, yx, xx) of the correlation, variance of the gradient (yy, yx, xx)."""
    ny, nx = pattern.shape
    last = table.shape[1] - 2
    reach = last * step
    sums[:] = 0.0
    for y in range(max(int(cy - reach), 0), min(int(cy + reach) + 2, ny)):
        for x in range(max(int(cx - reach), 0), min(int(cx + reach) + 2, nx)):
            dy, dx = y - cy, x - cx
            r = np.sqrt(dy * dy + dx * dx)
            place = r / step
            k = int(place)
            if k >= last:
                continue
            f = place - k
            counts = pattern[y, x] - floor
            sums[0] += counts * (table[0, k] + f * (table[0, k + 1] - table[0, k]))
            if r < 1e-9:
                continue
            first = table[1, k] + f * (table[1, k + 1] - table[1, k])
            second = table[2, k] + f * (table[2, k + 1] - table[2, k])
            uy, ux, bend = dy / r, dx / r, first / r
            sums[1] -= counts * first * uy
            sums[2] -= counts * first * ux
            sums[3] += counts * (second * uy * uy + bend * ux * ux)
            sums[4] += counts * (second - bend) * uy * ux
            sums[5] += counts * (second * ux * ux + bend * uy * uy)
            variance = (slope * max(counts, 0.0) + dark) * first * first
            sums[6] += variance * uy * uy
            sums[7] += variance * uy * ux
            sums[8] += variance * ux * ux


@numba.njit(nogil=True, cache=True)
def refine(pattern, seed, table, step, floor, slope, dark, out):
    """Climb to the maximum of the correlation: Newton's steps, halved until they lead uphill.

    Where the curvature H is not that of a maximum, the variance V of the gradient takes its place, which is
    positive definite whatever the counts. The uncertainty is H⁻¹ V H⁻¹.

    Parameters
    ----------
    pattern : ndarray of float32, shape (detector_y, detector_x)
    seed : ndarray of shape (2,)
        Where to start, px.
    table, step : ndarray of shape (3, n), float
        From `beam.template`.
    floor, slope, dark : float
        Noise model, see `moments.Noise`.
    out : ndarray of shape (4,)
        Receives y, x and the standard deviation per axis (NaN where the maximum is not a maximum).
    """
    cy, cx = seed[0], seed[1]
    now, new = np.zeros(9), np.zeros(9)
    _evaluate(pattern, cy, cx, table, step, floor, slope, dark, now)
    for _ in range(30):
        hyy, hyx, hxx = -now[3], -now[4], -now[5]
        det = hyy * hxx - hyx * hyx
        if det <= 0 or hyy <= 0:
            hyy, hyx, hxx = now[6] / slope, now[7] / slope, now[8] / slope
            det = hyy * hxx - hyx * hyx
            if det <= 0:
                break
        sy = (hxx * now[1] - hyx * now[2]) / det
        sx = (hyy * now[2] - hyx * now[1]) / det
        size = np.sqrt(sy * sy + sx * sx)
        if size < SETTLED_PX:  # the next step would be about the square of this one
            cy, cx = cy + sy, cx + sx
            break
        if size > 1:
            sy, sx = sy / size, sx / size
        scale, moved = 1.0, False
        while scale > 0.01:
            _evaluate(pattern, cy + scale * sy, cx + scale * sx, table, step, floor, slope, dark, new)
            if new[0] > now[0]:
                cy, cx, moved = cy + scale * sy, cx + scale * sx, True
                now[:] = new
                break
            scale *= 0.5
        if not moved:
            break
    out[0], out[1] = cy, cx
    out[2] = _sandwich(now)


@numba.njit(nogil=True, cache=True)
def _sandwich(sums):
    """Standard deviation per axis from H⁻¹ V H⁻¹."""
    a, b, c = -sums[3], -sums[4], -sums[5]
    det = a * c - b * b
    if det <= 0 or a <= 0:
        return np.nan
    iyy, iyx, ixx = c / det, -b / det, a / det
    vyy, vyx, vxx = sums[6], sums[7], sums[8]
    first = iyy * iyy * vyy + 2 * iyy * iyx * vyx + iyx * iyx * vxx
    other = iyx * iyx * vyy + 2 * iyx * ixx * vyx + ixx * ixx * vxx
    return np.sqrt(0.5 * (first + other))


@numba.njit(nogil=True, cache=True)
def centre_of_mass(pattern, seed, radius, edge, floor, slope, dark, out):
    """Centre of mass within 1.5 radii, background taken off, repeated until it stays.

    Parameters are those of `refine`, with the disk's radius and edge width in px instead of a template.
    """
    ny, nx = pattern.shape
    cy, cx = seed[0], seed[1]
    reach = 1.3 * radius + 3 * edge
    for _ in range(30):
        level, number = 0.0, 0
        for y in range(max(int(cy - reach) - 2, 0), min(int(cy + reach) + 3, ny)):
            for x in range(max(int(cx - reach) - 2, 0), min(int(cx + reach) + 3, nx)):
                r = np.hypot(y - cy, x - cx)
                if reach < r <= reach + 1.5:
                    level += pattern[y, x]
                    number += 1
        level = level / number if number else floor
        total, my, mx, spread = 0.0, 0.0, 0.0, 0.0
        for y in range(max(int(cy - reach), 0), min(int(cy + reach) + 2, ny)):
            for x in range(max(int(cx - reach), 0), min(int(cx + reach) + 2, nx)):
                r2 = (y - cy) ** 2 + (x - cx) ** 2
                if r2 <= reach * reach:
                    counts = pattern[y, x] - level
                    total += counts
                    my += counts * (y - cy)
                    mx += counts * (x - cx)
                    spread += (slope * max(pattern[y, x] - floor, 0.0) + dark) * r2 / 2
        if total <= 0:
            out[2] = np.nan
            return
        cy += my / total
        cx += mx / total
        out[0], out[1], out[2] = cy, cx, np.sqrt(spread) / total
        if np.hypot(my, mx) / total < 1e-3:
            return


@numba.njit(nogil=True, cache=True)
def beam_counts(pattern, centre, radius, floor, slope, dark):
    """Counts inside the disk above those of the ring around it, and their standard deviation.

    Parameters
    ----------
    pattern : ndarray of float32, shape (detector_y, detector_x)
    centre : ndarray of shape (2,)
        Position (y, x), px.
    radius : float
        Of the disk, px.
    floor, slope, dark : float
        Noise model, see `moments.Noise`.
    """
    ny, nx = pattern.shape
    reach = 1.5 * radius + 3
    signal, inside, ring, number = 0.0, 0, 0.0, 0
    for y in range(max(int(centre[0] - reach), 0), min(int(centre[0] + reach) + 2, ny)):
        for x in range(max(int(centre[1] - reach), 0), min(int(centre[1] + reach) + 2, nx)):
            r = np.sqrt((y - centre[0]) ** 2 + (x - centre[1]) ** 2)
            if r <= radius:
                signal += pattern[y, x] - floor
                inside += 1
            elif radius + 2 < r <= reach:
                ring += pattern[y, x] - floor
                number += 1
    if inside == 0:
        return 0.0, 1.0
    level = ring / number if number else 0.0
    # Under "no beam", the disk would hold what the ring holds; 1 count guards an empty ring.
    chance = (slope * max(level, 0.0) + dark) * inside * (1 + inside / max(number, 1)) + slope * slope
    return signal - level * inside, np.sqrt(chance)


@numba.njit(nogil=True, cache=True)
def add_centred(pattern, usable, floor, centre, total, peak):
    """Move the beam to the middle, bilinearly; add the pattern to a sum and take it up into a maximum.

    What `geometry.resample` does without ellipse and rotation: all pixels then share four weights.

    Parameters
    ----------
    pattern : ndarray of float32, shape (detector_y, detector_x)
    usable : ndarray of uint8, shape (detector_y, detector_x)
    floor : float
        Subtracted counts.
    centre : ndarray of shape (2,)
        Position (y, x), px.
    total, peak : ndarray of float64 and float32, shape (detector_y, detector_x)
        Changed. A pixel whose four neighbours carry less than half of the weight counts as 0.
    """
    ny, nx = pattern.shape
    oy, ox = centre[0] - (ny - 1) / 2, centre[1] - (nx - 1) / 2
    below, left = int(np.floor(oy)), int(np.floor(ox))
    fy, fx = oy - below, ox - left
    values, weights = np.empty(nx), np.empty(nx)
    for y in range(ny):
        values[:], weights[:] = 0.0, 0.0
        for dy in range(2):
            y0 = y + below + dy
            if y0 < 0 or y0 >= ny:
                continue
            for dx in range(2):
                w = (fy if dy else 1 - fy) * (fx if dx else 1 - fx)
                shift = left + dx
                for x in range(max(-shift, 0), min(nx - shift, nx)):
                    part = w * usable[y0, x + shift]
                    values[x] += part * (pattern[y0, x + shift] - floor)
                    weights[x] += part
        for x in range(nx):
            value = values[x] / weights[x] if weights[x] >= 0.5 else 0.0
            total[y, x] += value
            peak[y, x] = max(peak[y, x], np.float32(value))
