"""The bank of templates and the correlation of patterns with all of it.

A pattern P and a template T on rings (radius, azimuth), both raised to a power and freed of each ring's mean::

    Q(φ) = Σ w(r) P(r, θ) T(r, θ - φ) / (‖P‖ ‖T‖_φ),   w(r) = r

w is the area of a bin. Without ring means, smooth diffuse scattering neither raises Q nor favours templates with
many reflections. ‖T‖_φ sums only over bins that are valid, so a mask favours no in-plane angle. Over azimuth the
sum is a product of Fourier coefficients; over radii it is a matrix product, one per coefficient.

Half of the templates suffices: kinematical intensities obey I(g) = I(-g), so the orientation M diag(-1, 1, -1)
has the pattern of M mirrored in y, whose coefficients are the complex conjugates. With the template's coefficients
a + ib (a, b real) and the pattern's p, the real functions A of coefficients a p and B of -i b p give both::

    Q = A + B,   Q of the mirror image = A - B,   A + iB has the coefficients (a + b) p

at all frequencies, negative ones too, so that one real matrix product and one complex transform serve both.

Bins of azimuth are as fine as the last ring asks. Inside, where they are finer than disks, only frequencies up to
k ≤ r / r_last · azimuths / 2 are used, of templates and so of patterns: the same detail everywhere, by half of the
matrix product.
"""

import functools
from dataclasses import dataclass, replace

import numpy as np
import torch

from fourdstem.cache import kept
from fourdstem.crystal import Crystal
from fourdstem.methods.orientation.azimuth import PEAKS, correlated, peaks_torch, turns_of
from fourdstem.methods.orientation.polar import Rings, polar_map
from fourdstem.methods.orientation.rotations import from_matrix, reduced_directions, zone_orientations
from fourdstem.methods.orientation.templates import relrod, render, rods
from fourdstem.methods.orientation.transform import TALL, WIDE
from fourdstem.vectors import LANES

_CHUNK = 64
# Templates correlated at a time on a card, to keep all of it busy.
_TEMPLATES = 512
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
    spectra : torch.Tensor of float32, shape (azimuth, template, r)
        (a + b) w(r) / azimuths of frequencies 0, 1, …, -1: see the module's docstring. For a processor packed, of shape
        (groups, numbers, TALL): see `azimuth.correlated`.
    first_ring : ndarray of int, shape (azimuth,)
        The first ring of which a frequency is used.
    inverse_norm : torch.Tensor of float32, shape (2, template, azimuth)
        1/‖T‖ of templates and of their mirror images at each in-plane angle.
    quaternion : ndarray of shape (2, template, 4)
        Orientation of each at in-plane angle 0.
    phase : ndarray of int, shape (template,)
    valid : ndarray of float32, shape (r, azimuth)
    radius : ndarray of float32, shape (r,)
    power : float
        Of intensities.
    apart : int
        Bins of azimuth by which two peaks of one template differ at least.
    """

    spectra: torch.Tensor
    first_ring: np.ndarray
    inverse_norm: torch.Tensor
    quaternion: np.ndarray
    phase: np.ndarray
    valid: np.ndarray
    radius: np.ndarray
    power: float
    apart: int


@dataclass(frozen=True)
class Optics:
    """What templates need to know, in Å and rad; for intensity ("kinematical", "two_beam") and rod see `templates`."""

    wavelength: float
    pixel: float
    disk_px: float
    alpha: float
    phi: float
    thickness: float
    intensity: str = "kinematical"
    rod: str = "lorentzian"


def build_bank(
    crystals: list[Crystal],
    optics: Optics,
    rings: Rings,
    valid: np.ndarray,
    sampling_deg: float,
    power: float,
    distinct_deg: float,
    device,
) -> Bank:
    """Simulate the templates of all phases and prepare them for `correlate`; those of a phase are kept on disk."""
    zones = [zone_orientations(reduced_directions(crystal.operations, sampling_deg)) for crystal in crystals]
    spectra, norms = [], []
    for crystal, matrices in zip(crystals, zones, strict=True):
        follows_from = replace(crystal, name=""), matrices, optics, rings, valid, sampling_deg, power
        make = functools.partial(_coefficients, crystal, matrices, optics, rings, valid, sampling_deg, power)
        found = kept(follows_from, __file__, make)
        spectra.append(torch.from_numpy(found[0]))
        norms.append(torch.from_numpy(found[1]))
    matrices, used = np.concatenate(zones), _used(rings)
    spectra = torch.cat(spectra, dim=1)
    return Bank(
        spectra=spectra.to(device) if device != "cpu" else _packed(spectra, used),
        first_ring=used.shape[1] - used.sum(axis=1),
        inverse_norm=torch.cat(norms, dim=1).to(device),
        quaternion=from_matrix(np.stack([matrices, matrices @ np.diag([-1.0, 1.0, -1.0])])),
        phase=np.repeat(np.arange(len(zones)), [len(part) for part in zones]),
        valid=valid.astype(np.float32),
        radius=rings.radius.astype(np.float32),
        power=power,
        apart=int(np.deg2rad(distinct_deg) * rings.azimuths / (2 * np.pi)),
    )


def _coefficients(crystal, zones, optics, rings, valid, sampling_deg, power) -> tuple[np.ndarray, np.ndarray]:
    """Return ``spectra`` and ``inverse_norm`` of a `Bank` of one phase."""
    # Where a ring is seen as a whole its share of ‖T‖² is the same at every angle; elsewhere it takes a transform.
    whole, radius = torch.from_numpy(valid.all(axis=1)), torch.from_numpy(rings.radius).float()
    partly = ~whole
    visible = torch.fft.rfft(radius[partly, None] * torch.from_numpy(valid).float()[partly]) if partly.any() else None
    # A sum over frequencies is divided by their number: here, once, not after every transform.
    area = torch.from_numpy(rings.radius / rings.azimuths)[:, None].float()
    used = torch.from_numpy(_used(rings).T)
    spectra = torch.empty(rings.azimuths, len(zones), len(rings.radius))
    norms = torch.empty(2, len(zones), rings.azimuths)
    first = 0
    for polar in _polar_templates(crystal, zones, optics, rings, sampling_deg, power):
        part = slice(first, first + len(polar))
        spectrum = torch.fft.fft(polar) * used
        polar = torch.fft.ifft(spectrum).real
        norms[:, part] = (polar.square().sum(dim=-1) @ (radius * whole))[:, None]
        if visible is not None:
            norm2 = torch.fft.rfft(polar[:, partly] ** 2)
            norms[0, part] += torch.fft.irfft((visible * norm2.conj()).sum(dim=1), rings.azimuths)
            norms[1, part] += torch.fft.irfft((visible * norm2).sum(dim=1), rings.azimuths)
        spectra[:, part] = ((spectrum.real + spectrum.imag) * area).permute(2, 0, 1)
        first = part.stop
    return spectra.numpy(), _inverse(norms).numpy()


def _used(rings: Rings) -> np.ndarray:
    """Return which frequencies are used of which rings, (azimuth, r); 0 (ring means are 0) and Nyquist's are not."""
    frequency = np.abs(np.fft.fftfreq(rings.azimuths, 1 / rings.azimuths))[:, None]
    limit = np.ceil(rings.azimuths / 2 * rings.radius / rings.radius[-1])
    return (frequency > 0) & (frequency < rings.azimuths // 2) & (frequency <= limit)


def _packed(spectra: torch.Tensor, used: np.ndarray) -> torch.Tensor:
    """Return what is used of the coefficients in the order in which `azimuth.correlated` takes them."""
    azimuths, templates, rings = spectra.shape
    groups = -(-templates // TALL)
    padded = torch.nn.functional.pad(spectra, (0, 0, 0, groups * TALL - templates))
    return padded.view(azimuths, groups, TALL, rings).permute(1, 0, 3, 2)[:, torch.from_numpy(used)].contiguous()


def _polar_templates(crystal, zones, optics, rings, sampling_deg, power):
    """Yield templates on rings, raised to the power and free of ring means, (n, r, azimuth), some at a time."""
    half = int(np.ceil(rings.radius[-1] + rings.width + optics.disk_px + 2))
    weights, _ = polar_map(rings, (2 * half + 1, 2 * half + 1))
    reflections = _reflections(crystal, optics, half)
    for start in range(0, len(zones), _CHUNK):
        images = _drawn(reflections, zones[start : start + _CHUNK], optics, half, sampling_deg)
        polar = np.ascontiguousarray((weights @ images.T).T).reshape(-1, len(rings.radius), rings.azimuths)
        polar = torch.from_numpy(raised(polar, power))
        yield polar - polar.mean(dim=-1, keepdim=True)


def draw(crystal: Crystal, zones: np.ndarray, optics: Optics, half: int, sampling_deg: float) -> np.ndarray:
    """Templates as float32 images (n, (2 half + 1)²), each standing for a cell of the grid of zone axes."""
    return _drawn(_reflections(crystal, optics, half), zones, optics, half, sampling_deg)


def _reflections(crystal: Crystal, optics: Optics, half: int) -> tuple:
    return rods(crystal, half * optics.pixel, optics.wavelength, optics.thickness, optics.intensity)


def _drawn(reflections: tuple, zones: np.ndarray, optics: Optics, half: int, sampling_deg: float) -> np.ndarray:
    (g, strength, length), size = reflections, 2 * half + 1
    half_width = np.hypot(optics.alpha, np.deg2rad(sampling_deg) / 2)
    images = np.zeros((len(zones), size, size), np.float32)
    for image, zone in zip(images, zones, strict=True):
        lab = g @ zone
        intensity = strength * relrod(lab, optics.wavelength, length, optics.phi, half_width, optics.rod == "gaussian")
        shown = intensity > _FAINT * intensity.max()
        render(lab[shown], intensity[shown], optics.pixel, optics.disk_px, image)
    return images.reshape(len(zones), -1)


def _inverse(norm2: torch.Tensor) -> torch.Tensor:
    enough = norm2 > _VISIBLE * norm2.amax(dim=-1, keepdim=True).clamp_min(1e-12)
    return torch.where(enough, norm2.clamp_min(1e-30).rsqrt(), 0)


def raised(values: np.ndarray, power: float) -> np.ndarray:
    """``values`` (float32, in place) to a power; by square roots, which are quick, where these do."""
    if power == 0.25:
        return np.sqrt(np.sqrt(values, out=values), out=values)
    return np.power(values, np.float32(power), out=values)


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
    polar = raised(np.maximum(polar, 0, order="C"), bank.power)
    polar *= bank.valid
    values, valid, radius = (torch.from_numpy(part) for part in (polar, bank.valid, bank.radius))
    whole = torch.linalg.vector_norm(values, dim=2).square() @ radius
    mean = values.sum(dim=2) / valid.sum(dim=1).clamp_min(1)
    values.sub_(mean[..., None]).mul_(valid)
    energy = torch.linalg.vector_norm(values, dim=2).square() @ radius
    usable = energy > _FLAT**2 * whole
    values.mul_(torch.where(usable, energy.rsqrt(), 0)[:, None, None])
    return polar, usable.numpy()


def correlate(prepared: np.ndarray, bank: Bank) -> tuple[np.ndarray, np.ndarray]:
    """Correlate patterns with every template and its mirror image at every in-plane angle; keep the peaks.

    Parameters
    ----------
    prepared : ndarray of float32, shape (n, r, azimuth)
        From `prepare`.
    bank : Bank

    Returns
    -------
    score, place : ndarray of float32, shape (template, 2, peak, n)
        Heights of the two highest peaks over azimuth (0: no second one), and where they are, in bins.
    """
    spectra, azimuths = bank.spectra, prepared.shape[2]
    patterns, templates = -(-len(prepared) // (WIDE // 2)) * (WIDE // 2), len(bank.phase)
    spectrum = torch.fft.rfft(torch.from_numpy(prepared).to(spectra.device)).permute(2, 1, 0)
    both, half = spectra.new_zeros(azimuths, prepared.shape[1], 2, patterns), azimuths // 2
    for part, (values, sign) in enumerate(((spectrum.real, 1), (spectrum.imag, -1))):
        both[: half + 1, :, part, : len(prepared)] = values
        both[half + 1 :, :, part] = sign * both[1:half, :, part].flip(0)
    both = both.flatten(2)
    shape = (templates, 2, PEAKS, patterns)
    score, place = np.empty(shape, np.float32), np.empty(shape, np.float32)
    if _on_card(spectra):
        for first in range(0, templates, _TEMPLATES):
            part = slice(first, first + _TEMPLATES)
            found = peaks_torch(torch.bmm(spectra[:, part], both), bank.inverse_norm[:, part], bank.apart)
            score[part], place[part] = (values.cpu().numpy() for values in found)
    else:
        # torch's begin lines of the cache
        room, work = torch.zeros(azimuths, TALL, 2 * patterns), torch.empty(4, azimuths * LANES)
        arrays = [values.numpy() for values in (spectra, both, bank.inverse_norm, room, work)]
        rows, both, norm, room, work = arrays
        turns = turns_of(azimuths)
        correlated(rows, both, bank.first_ring, norm, bank.apart, turns, room, work, score, place)
    return score[..., : len(prepared)], place[..., : len(prepared)]


def _on_card(values: torch.Tensor) -> bool:
    return values.device.type != "cpu"
