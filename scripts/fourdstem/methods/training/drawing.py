"""Kernels that put disks, rings and background onto a detector and choose the reflections to be seen.

A point at the offset p from the beam on the detector lies at ``u = inverse @ p`` before the camera's ellipse.
Inside a disk the excitation error changes with the place in it, as it does with the direction of the incident ray:
``s = s0 + slope · u``, and the two-beam intensity ``w² sin²(π t √(s² + w²)) / (s² + w²)``, w = 1/ξ, follows it
(Reimer & Kohl, section 7.3). Where the slope is 0 the disk is flat.
"""

import math

import numba
import numpy as np

from fourdstem import jit  # noqa: F401  compiled code is cached safely


@numba.njit(nogil=True, cache=True)
def excite(g, strength, turn, wavelength, width, reach):
    """Choose the reflections near the Ewald sphere.

    Parameters
    ----------
    g : ndarray of shape (n, 3)
        In the crystal frame, 1/Å.
    strength : ndarray of shape (n,)
    turn : ndarray of shape (3, 3)
        Crystal to lab; the beam travels along z.
    wavelength : float
        Å.
    width : float
        Largest excitation error, 1/Å.
    reach : float
        Largest |g| across the beam, 1/Å.

    Returns
    -------
    ndarray of shape (found, 4)
        g_y, g_x and s in 1/Å, and the strength.
    """
    out = np.empty((g.shape[0], 4))
    found = 0
    k = 1.0 / wavelength
    for i in range(g.shape[0]):
        gz = turn[2, 0] * g[i, 0] + turn[2, 1] * g[i, 1] + turn[2, 2] * g[i, 2]
        square = g[i, 0] ** 2 + g[i, 1] ** 2 + g[i, 2] ** 2
        s = -(2.0 * k * gz + square) / (2.0 * math.sqrt(k * k + 2.0 * k * gz + square))
        if abs(s) > width:
            continue
        gx = turn[0, 0] * g[i, 0] + turn[0, 1] * g[i, 1] + turn[0, 2] * g[i, 2]
        gy = turn[1, 0] * g[i, 0] + turn[1, 1] * g[i, 1] + turn[1, 2] * g[i, 2]
        if gx * gx + gy * gy < reach * reach:
            out[found, 0], out[found, 1], out[found, 2], out[found, 3] = gy, gx, s, strength[i]
            found += 1
    return out[:found]


@numba.njit(nogil=True, cache=True)
def rocking(s, w, thickness):
    """Two-beam intensity at excitation error s, w = 1/ξ (1/Å), thickness in Å."""
    square = s * s + w * w
    return w * w * math.sin(math.pi * thickness * math.sqrt(square)) ** 2 / square


@numba.njit(nogil=True, cache=True)
def _mean_rocking(rock, thickness, radius):
    """Mean of the rocking curve over a disk, from 48 places in it."""
    total = 0.0
    for k in range(48):
        r, a = radius * math.sqrt((k + 0.5) / 48.0), 2.399963 * k
        s = rock[0] + r * (rock[1] * math.sin(a) + rock[2] * math.cos(a))
        total += rocking(s, rock[3], thickness)
    return total / 48.0


@numba.njit(nogil=True, cache=True)
def add_disks(position, flux, rock, thickness, shape, centre, matrix, inverse, probe, out):
    """Add diffracted disks to a pattern.

    Parameters
    ----------
    position : ndarray of shape (n, 2)
        Offsets (y, x) from the beam before the ellipse, px.
    flux : ndarray of shape (n,)
        Integrated intensities.
    rock : ndarray of shape (n, 4)
        s0 (1/Å), slopes along y and x (1/Å per px), and w = 1/ξ (1/Å); slopes of 0 make flat disks.
    thickness : ndarray of shape (n,)
        Å.
    shape : tuple of float
        Radius of the disks and width of their edge, px.
    centre : ndarray of shape (2,)
        Beam position (y, x), px.
    matrix, inverse : ndarray of shape (2, 2)
        Ellipse of the camera and its inverse.
    probe : ndarray of shape (2, 2)
        Takes an offset in a disk to one in a round disk: the shape of the aperture, or of an astigmatic probe.
    out : ndarray of shape (detector_y, detector_x)
    """
    radius, edge = shape
    reach = 1.25 * (radius + 3.5 * edge)
    scale = 1.0 / (math.sqrt(2.0) * edge)
    area = math.pi * radius * radius
    for i in range(position.shape[0]):
        cy = centre[0] + matrix[0, 0] * position[i, 0] + matrix[0, 1] * position[i, 1]
        cx = centre[1] + matrix[1, 0] * position[i, 0] + matrix[1, 1] * position[i, 1]
        flat = rock[i, 1] == 0.0 and rock[i, 2] == 0.0
        level = flux[i] / area
        if not flat:
            level /= max(_mean_rocking(rock[i], thickness[i], radius), 1e-4)
        for y in range(max(math.ceil(cy - reach), 0), min(int(cy + reach) + 1, out.shape[0])):
            for x in range(max(math.ceil(cx - reach), 0), min(int(cx + reach) + 1, out.shape[1])):
                uy = inverse[0, 0] * (y - cy) + inverse[0, 1] * (x - cx)
                ux = inverse[1, 0] * (y - cy) + inverse[1, 1] * (x - cx)
                vy, vx = probe[0, 0] * uy + probe[0, 1] * ux, probe[1, 0] * uy + probe[1, 1] * ux
                depth = (math.sqrt(vy * vy + vx * vx) - radius) * scale
                if depth > 2.5:
                    continue
                value = level * 0.5 * math.erfc(depth)
                if not flat:
                    value *= rocking(rock[i, 0] + rock[i, 1] * uy + rock[i, 2] * ux, rock[i, 3], thickness[i])
                out[y, x] += value


@numba.njit(nogil=True, cache=True)
def add_direct(flux, rock, thickness, tilt, shape, centre, inverse, probe, out):
    """Add the direct disk, darkened where diffracted beams are excited.

    Parameters
    ----------
    flux : float
        Intensity that the disk would have, were nothing diffracted.
    rock, thickness, shape, centre, inverse, probe, out
        As in `add_disks`; the reflections that matter to the direct beam.
    tilt : ndarray of shape (2,)
        Change of brightness along y and x from the middle to the edge.
    """
    radius, edge = shape
    reach = 1.25 * (radius + 3.5 * edge)
    scale = 1.0 / (math.sqrt(2.0) * edge)
    level = flux / (math.pi * radius * radius)
    for y in range(max(math.ceil(centre[0] - reach), 0), min(int(centre[0] + reach) + 1, out.shape[0])):
        for x in range(max(math.ceil(centre[1] - reach), 0), min(int(centre[1] + reach) + 1, out.shape[1])):
            uy = inverse[0, 0] * (y - centre[0]) + inverse[0, 1] * (x - centre[1])
            ux = inverse[1, 0] * (y - centre[0]) + inverse[1, 1] * (x - centre[1])
            vy, vx = probe[0, 0] * uy + probe[0, 1] * ux, probe[1, 0] * uy + probe[1, 1] * ux
            depth = (math.sqrt(vy * vy + vx * vx) - radius) * scale
            if depth > 2.5:
                continue
            value = level * 0.5 * math.erfc(depth) * max(1.0 + (tilt[0] * uy + tilt[1] * ux) / radius, 0.0)
            for i in range(rock.shape[0]):
                s = rock[i, 0] + rock[i, 1] * uy + rock[i, 2] * ux
                value *= 1.0 - 0.95 * rocking(s, rock[i, 3], thickness[i])
            out[y, x] += value


@numba.njit(nogil=True, cache=True)
def add_radial(profile, step, middle, inverse, out):
    """Add what depends only on the distance from the beam before the ellipse: rings, halos, background.

    Parameters
    ----------
    profile : ndarray of shape (n,)
        Intensity at distances 0, step, 2 step, … px; 0 beyond.
    step : float
    middle : ndarray of shape (2,)
        Where it is centred (y, x), px.
    inverse : ndarray of shape (2, 2)
    out : ndarray of shape (detector_y, detector_x)
    """
    for y in range(out.shape[0]):
        for x in range(out.shape[1]):
            uy = inverse[0, 0] * (y - middle[0]) + inverse[0, 1] * (x - middle[1])
            ux = inverse[1, 0] * (y - middle[0]) + inverse[1, 1] * (x - middle[1])
            place = math.sqrt(uy * uy + ux * ux) / step
            k = int(place)
            if k < profile.size - 1:
                out[y, x] += profile[k] + (place - k) * (profile[k + 1] - profile[k])
