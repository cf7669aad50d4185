"""The bank of templates and the correlation of patterns with all of it.

A pattern P and a template T on rings (radius, azimuth), both raised to a power and freed of each ring's mean::

    Q(φ) = Σ w(r) P(r, θ) T(r, θ - φ) / (‖P‖ ‖T‖_φ),   w(r) = r

w is the area of a bin. Without ring means, smooth diffuse scattering neither raises Q nor favours templates with
many reflections. ‖T‖_φ sums only over bins that are valid, so a mask favours no in-plane angle. Over azimuth the
sum is a product of Fourier coefficients; over radii it is a matrix product, one per coefficient.

Half of the templates suffices: kinematical intensities obey I(g) = I(-g), so the orientation M diag(-1, 1, -1)
has the pattern of M mirrored in y, whose coefficients are the complex conjugates. A *row* is a template or its
mirror image; rows [0, n) are templates, [n, 2n) their mirror images.
"""

from dataclasses import dataclass

import numba
import numpy as np
import torch

from fourdstem.crystal import Crystal
from fourdstem.methods.orientation.polar import Rings, polar_map
from fourdstem.methods.orientation.rotations import from_matrix, reduced_directions, zone_orientations
from fourdstem.methods.orientation.templates import bright_reflections, relrod, render

_CHUNK = 256
# Reflections fainter than this part of a template's strongest are lost in any background; not drawn.
_FAINT = 1e-5
# Below this share of a template's energy on valid bins its correlation means nothing.
_VISIBLE = 0.25
# Relative contrast, in single precision, at which a pattern counts as constant.
_FLAT = 1e-4


@dataclass(frozen=True)
class Bank:
    """All templates, ready to be matched.

    Attributes
    ----------
    spectra : torch.Tensor of float32, shape (2 k, n, r)
        Real parts of the templates' coefficients, then imaginary parts, times w(r).
    inverse_norm : torch.Tensor of float32, shape (2 n, azimuth)
        1/‖T‖ for each row and in-plane angle.
    quaternion : ndarray of shape (2 n, 4)
        Orientation of each row at in-plane angle 0.
    phase : ndarray of int, shape (2 n,)
    valid : ndarray of float32, shape (r, azimuth)
    radius : ndarray of float32, shape (r,)
    power : float
        Of intensities.
    """

    spectra: torch.Tensor
    inverse_norm: torch.Tensor
    quaternion: np.ndarray
    phase: np.ndarray
    valid: np.ndarray
    radius: np.ndarray
    power: float


@dataclass(frozen=True)
class Optics:
    """What templates need to know, in Å and rad: see `templates`."""

    wavelength: float
    pixel: float
    disk_px: float
    alpha: float
    phi: float
    thickness: float


def build_bank(
    crystals: list[Crystal], optics: Optics, rings: Rings, valid: np.ndarray, sampling_deg: float, power: float, device
) -> Bank:
    """Simulate the templates of all phases and prepare them for `correlate`."""
    half = int(np.ceil(rings.radius[-1] + rings.width + optics.disk_px + 2))
    weights, _ = polar_map(rings, (2 * half + 1, 2 * half + 1))
    visible = torch.fft.rfft(torch.from_numpy(rings.radius[:, None] * valid).float(), dim=-1)
    spectra, direct, mirror, quaternions, phases = [], [], [], [], []
    for index, crystal in enumerate(crystals):
        zones = zone_orientations(reduced_directions(crystal.operations, sampling_deg))
        quaternions.append(zones)
        phases.append(np.full(len(zones), index))
        for start in range(0, len(zones), _CHUNK):
            images = draw(crystal, zones[start : start + _CHUNK], optics, half, sampling_deg)
            polar = torch.from_numpy((weights @ images.T).T.reshape(-1, *valid.shape)) ** power
            polar -= polar.mean(dim=-1, keepdim=True)
            norm2 = torch.fft.rfft(polar**2, dim=-1)
            direct.append(torch.fft.irfft((visible * norm2.conj()).sum(dim=1), valid.shape[1]))
            mirror.append(torch.fft.irfft((visible * norm2).sum(dim=1), valid.shape[1]))
            spectra.append(torch.fft.rfft(polar, dim=-1) * torch.from_numpy(rings.radius)[:, None].float())
    spectrum = torch.cat(spectra).permute(2, 0, 1)
    zones = np.concatenate(quaternions)
    mirrored = zones @ np.diag([-1.0, 1.0, -1.0])
    return Bank(
        spectra=torch.cat([spectrum.real, spectrum.imag]).contiguous().to(device),
        inverse_norm=_inverse(torch.cat(direct + mirror)).to(device),
        quaternion=from_matrix(np.concatenate([zones, mirrored])),
        phase=np.tile(np.concatenate(phases), 2),
        valid=valid.astype(np.float32),
        radius=rings.radius.astype(np.float32),
        power=power,
    )


def draw(crystal: Crystal, zones: np.ndarray, optics: Optics, half: int, sampling_deg: float) -> np.ndarray:
    """Templates as float32 images (n, (2 half + 1)²), each standing for a cell of the grid of zone axes."""
    size = 2 * half + 1
    g, f2 = bright_reflections(crystal, half * optics.pixel)
    half_width = np.hypot(optics.alpha, np.deg2rad(sampling_deg) / 2)
    images = np.zeros((len(zones), size, size), np.float32)
    for image, zone in zip(images, zones, strict=True):
        lab = g @ zone
        intensity = f2 * relrod(lab, optics.wavelength, optics.thickness, optics.phi, half_width)
        shown = intensity > _FAINT * intensity.max()
        render(lab[shown], intensity[shown], optics.pixel, optics.disk_px, image)
    return images.reshape(len(zones), -1)


def _inverse(norm2: torch.Tensor) -> torch.Tensor:
    enough = norm2 > _VISIBLE * norm2.amax(dim=1, keepdim=True).clamp_min(1e-12)
    return torch.where(enough, norm2.clamp_min(1e-30).rsqrt(), 0)


def prepare(polar: np.ndarray, bank: Bank) -> tuple[np.ndarray, np.ndarray]:
    """Raise patterns to the power, take ring means away, normalise.

    Parameters
    ----------
    polar : ndarray of float32, shape (n, r, azimuth)
    bank : Bank

    Returns
    -------
    prepared : ndarray of float32, shape (n, r, azimuth)
        0 where there is nothing to match.
    usable : ndarray of bool, shape (n,)
        False for dark and constant patterns.
    """
    polar = np.maximum(polar, 0) ** np.float32(bank.power)
    count = bank.valid.sum(axis=1)
    mean = (polar * bank.valid).sum(axis=2) / np.maximum(count, 1)
    flat = (polar - mean[..., None]) * bank.valid
    energy = np.einsum("nra,r->n", flat**2, bank.radius)
    whole = np.einsum("nra,r->n", (polar * bank.valid) ** 2, bank.radius)
    usable = energy > _FLAT**2 * whole
    scale = np.where(usable, 1 / np.sqrt(np.where(usable, energy, 1)), 0)
    return (flat * scale[:, None, None]).astype(np.float32), usable


def correlate(prepared: np.ndarray, bank: Bank) -> tuple[np.ndarray, np.ndarray]:
    """Correlate patterns with every row at every in-plane angle.

    Parameters
    ----------
    prepared : ndarray of float32, shape (n, r, azimuth)
        From `prepare`.
    bank : Bank

    Returns
    -------
    volume : ndarray of float32, shape (n, row, azimuth)
    best : ndarray of float32, shape (n, row)
        Largest over azimuth.
    """
    n, _, azimuths = prepared.shape
    n, _, azimuths = prepared.shape
    count = bank.spectra.shape[1]
    spectrum = torch.fft.rfft(torch.from_numpy(prepared).to(bank.spectra.device), dim=-1).permute(2, 1, 0)
    # With template a + ib and pattern p, the template has a p - i b p and its mirror image a p + i b p: both
    # follow from the transforms of a p and of -i b p.
    both = torch.view_as_real(torch.cat([spectrum, -1j * spectrum]).contiguous()).flatten(2)
    product = torch.bmm(bank.spectra, both).unflatten(2, (n, 2)).unflatten(0, (2, -1))
    parts = torch.fft.irfft(torch.view_as_complex(product), azimuths, dim=1).permute(0, 3, 2, 1)
    volume = torch.empty((n, 2 * count, azimuths), device=parts.device)
    torch.add(parts[0], parts[1], out=volume[:, :count])
    torch.sub(parts[0], parts[1], out=volume[:, count:])
    volume *= bank.inverse_norm
    return volume.cpu().numpy(), volume.amax(dim=-1).cpu().numpy()


@numba.njit(nogil=True, cache=True)
def select(volume, best, quaternion, phase, operations, start, distinct, row, angle, score):
    """Pick the best candidates, each more than an angle away from all before it.

    Parameters
    ----------
    volume : ndarray of float32, shape (n, row, azimuth)
        Changed: what lies too near to a candidate becomes -1.
    best : ndarray of float32, shape (n, row)
        Changed likewise.
    quaternion, phase : ndarray
        Of `Bank`. Orientations of different phases are always distinct.
    operations : ndarray of shape (m, 4)
        Rotations of the Laue groups of all phases, as quaternions.
    start : ndarray of int, shape (phases + 1,)
        ``operations[start[p]:start[p + 1]]`` belong to phase p.
    distinct : float
        Angle in rad.
    row, angle, score : ndarray of shape (n, candidates)
        Filled: row of the bank or -1, in-plane angle in rad (refined by a parabola), correlation on the grid.
    """
    azimuths = volume.shape[2]
    for b in range(volume.shape[0]):
        for c in range(row.shape[1]):
            top = np.argmax(best[b])
            if best[b, top] <= 0:
                break
            curve = volume[b, top]
            at = np.argmax(curve)
            row[b, c] = top
            score[b, c] = curve[at]
            angle[b, c] = 2 * np.pi * (at + _vertex(curve[at - 1], curve[at], curve[(at + 1) % azimuths])) / azimuths
            if c + 1 < row.shape[1]:
                q = turned(quaternion[top], angle[b, c])
                own = operations[start[phase[top]] : start[phase[top] + 1]]
                _exclude(volume[b], best[b], quaternion, phase, phase[top], own, q, distinct)


@numba.njit(nogil=True, cache=True)
def turned(q, angle):
    """Orientation whose pattern is that of ``q`` turned in plane by ``angle`` from +x towards +y: q z(-angle)."""
    c, s = np.cos(angle / 2), np.sin(angle / 2)
    return np.array([c * q[0] + s * q[3], c * q[1] - s * q[2], c * q[2] + s * q[1], c * q[3] - s * q[0]])


@numba.njit(nogil=True, cache=True)
def _vertex(left, middle, right):
    """Place of the top of a parabola through three neighbours; 0 where a neighbour is excluded or none bends."""
    bend = left - 2 * middle + right
    if left <= -1 or right <= -1 or bend >= 0:
        return 0.0
    return 0.5 * (left - right) / bend


@numba.njit(nogil=True, cache=True)
def _exclude(volume, best, quaternion, phase, own_phase, operations, q, distinct):
    """Set to -1 all that lies within ``distinct`` of orientation q or of a symmetric equivalent of it."""
    azimuths = volume.shape[1]
    limit, half_limit = np.cos(distinct), np.cos(distinct / 2)
    half_angle = np.pi * np.arange(azimuths) / azimuths
    cos, sin = np.cos(half_angle), np.sin(half_angle)
    for o in range(len(operations)):
        w, x, y, z = conjugate_times(operations[o], q)
        for r in range(len(best)):
            p = quaternion[r]
            even = w * p[0] + x * p[1] + y * p[2] + z * p[3]
            odd = w * p[3] - x * p[2] + y * p[1] - z * p[0]
            # even² + odd² = (1 + cosine of the angle between the zone axes) / 2; if these are farther apart than
            # the limit, no in-plane angle brings the orientations together.
            if phase[r] != own_phase or 2 * (even * even + odd * odd) - 1 < limit:
                continue
            best[r] = -1
            for i in range(azimuths):
                if abs(even * cos[i] + odd * sin[i]) >= half_limit:
                    volume[r, i] = -1
                best[r] = max(best[r], volume[r, i])


@numba.njit(nogil=True, cache=True)
def conjugate_times(a, b):
    """Return the quaternion product a* b as four numbers (w, x, y, z)."""
    w = a[0] * b[0] + a[1] * b[1] + a[2] * b[2] + a[3] * b[3]
    x = a[0] * b[1] - a[1] * b[0] - a[2] * b[3] + a[3] * b[2]
    y = a[0] * b[2] + a[1] * b[3] - a[2] * b[0] - a[3] * b[1]
    z = a[0] * b[3] - a[1] * b[2] + a[2] * b[1] - a[3] * b[0]
    return w, x, y, z
