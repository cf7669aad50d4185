"""Templates: which reflections shine at an orientation, how strongly, and their disks.

Kinematical intensity of reflection g, with F from `crystal.structure_factors` (Debye–Waller factor included), s the
excitation error and t the thickness::

    I = |F|² ⟨L(s + g φ cos ω + g τ)⟩_ω,τ,   L(s) = 1 / (1 + 2 (π s t)²)

L, the relrod, is Lorentz's by default: far from the Bragg condition it is sinc²(π s t) averaged over its fringes, whose
tails are what makes most of a pattern. The other choice is Gauss's with the curvature that sinc² has at its top and no
tails: L(s) = exp(-(π s t)² / 3). φ is the precession angle, averaged over its azimuth ω. The tilt τ is averaged over
±h, h² = α² + (δ/2)²: the rocking inside a disk (α, convergence semi-angle) and the cell of the grid of zone
axes that one template stands for (δ, its spacing; 0 where the orientation is known). Without δ, orientations
between grid points would match no template.

Of Lorentz's both averages are known: with a = √2 π t, u = 1 + i a s and c = a g φ, that over ω is Re 1/√(u² + c²), and
the integral of this over s is arg(u + √(u² + c²)) / a. Gauss's is averaged over τ by the error function, over ω by a
sum.

Two beams (Blackman, doi:10.1098/rspa.1939.0109): the wave swings between the direct and the diffracted beam, and s
is replaced by √(s² + 1/ξ²) with the extinction distance ξ = π V / (λ γ |F|). That is again such a relrod, fainter and
wider::

    |F|² → |F|² / A,   t → t / √A,   A = 1 + 2 (π t / ξ)²

of either shape, so that strong reflections of a crystal thicker than ξ / 4 no longer outshine the others, and stay
bright farther from the Bragg condition.
"""

import math

import numba
import numpy as np

from fourdstem.calibration import Acquisition
from fourdstem.crystal import Crystal, reflections, structure_factors
from fourdstem.errors import InputError
from fourdstem.methods.orientation.rotations import to_matrix

# Reflections weaker than this part of the strongest |F|² never show.
_ABSENT = 1e-6
_COMPTON = 0.02426310  # h / (m c) in Å


def template_pattern(
    crystal: Crystal,
    orientation: np.ndarray,
    acquisition: Acquisition,
    detector_shape: tuple[int, int],
    thickness_angstrom: float = 200.0,
    intensity: str = "auto",
    rod: str = "lorentzian",
) -> np.ndarray:
    """Reflections of one orientation in a corrected pattern, for drawing a template over it.

    Parameters
    ----------
    crystal : Crystal
    orientation : ndarray of shape (4,)
        Unit quaternion (w, x, y, z), lab -> crystal.
    acquisition : Acquisition
        Beam energy and detector pixel must be known.
    detector_shape : tuple of int
        (detector_y, detector_x), px.
    thickness_angstrom : float
        Length of the relrods is its inverse.
    intensity : {"auto", "kinematical", "two_beam"}
    rod : {"lorentzian", "gaussian"}

    Returns
    -------
    ndarray of shape (n, 3)
        y, x in px and intensity relative to the strongest, for all above 1e-3, strongest first.
    """
    pixel, wavelength = scale(acquisition)
    model = intensity_model(intensity, acquisition.precession_mrad)
    ny, nx = detector_shape
    g_max = np.hypot(ny, nx) / 2 * pixel
    g, strength, length = rods(crystal, g_max, wavelength, thickness_angstrom, model)
    lab = g @ to_matrix(orientation)
    alpha, phi = (acquisition.convergence_mrad or 0) * 1e-3, acquisition.precession_mrad * 1e-3
    weight = relrod(lab, wavelength, length, phi, alpha, rod == "gaussian")
    y, x = (ny - 1) / 2 + lab[:, 1] / pixel, (nx - 1) / 2 + lab[:, 0] / pixel
    spots = np.stack([y, x, strength * weight], -1)
    spots = spots[(y > -0.5) & (x > -0.5) & (y < ny - 0.5) & (x < nx - 0.5)]
    if len(spots) == 0:
        return spots
    spots[:, 2] /= max(spots[:, 2].max(), np.finfo(float).tiny)
    spots = spots[spots[:, 2] > 1e-3]
    return spots[np.argsort(-spots[:, 2], kind="stable")]


def intensity_model(setting: str, precession_mrad: float) -> str:
    """Return "two_beam" or "kinematical"; "auto" is the first where there is no precession."""
    if setting != "auto":
        return setting
    return "kinematical" if precession_mrad > 0 else "two_beam"


def scale(acquisition: Acquisition) -> tuple[float, float]:
    """(1/Å per pixel, wavelength in Å); InputError if the acquisition does not know them."""
    if acquisition.beam_energy_kev is None or acquisition.pixel_inv_angstrom is None:
        raise InputError(
            "no calibration",
            where="acquisition",
            expected="beam_energy_kev and detector_pixel_inv_angstrom (or detector_pixel_mrad)",
            do="Give them in the sample's acquisition block; where rings show, preprocess proposes the pixel.",
        )
    return acquisition.pixel_inv_angstrom, acquisition.wavelength_angstrom


def bright_reflections(crystal: Crystal, g_max: float) -> tuple[np.ndarray, np.ndarray]:
    """Reflections that are not absent: g (n, 3) in the crystal frame, 1/Å, and |F|² (n,)."""
    hkl, g = reflections(crystal, g_max)
    f2 = np.abs(structure_factors(crystal, hkl)) ** 2
    keep = f2 > _ABSENT * f2.max(initial=0)
    return g[keep], f2[keep]


def rods(crystal: Crystal, g_max: float, wavelength: float, thickness: float, intensity: str) -> tuple:
    """Reflections that are not absent, and the relrod of each.

    Parameters
    ----------
    crystal : Crystal
    g_max : float
        1/Å.
    wavelength, thickness : float
        Å.
    intensity : {"kinematical", "two_beam"}

    Returns
    -------
    g : ndarray of shape (n, 3)
        In the crystal frame, 1/Å.
    strength : ndarray of shape (n,)
        Intensity at the Bragg condition, in units of their own.
    length : ndarray of shape (n,)
        Thickness in Å whose inverse is the length of the relrod.
    """
    g, f2 = bright_reflections(crystal, g_max)
    damping = np.ones(len(f2))
    if intensity == "two_beam":
        damping += 2 * (np.pi * thickness / extinction_distance(crystal, f2, wavelength)) ** 2
    return g, f2 / damping, thickness / np.sqrt(damping)


def extinction_distance(crystal: Crystal, f2: np.ndarray, wavelength: float) -> np.ndarray:
    """ξ = π V / (λ γ |F|) in Å, of reflections with |F|² in Å² for electrons at rest."""
    volume = abs(np.linalg.det(crystal.lattice))
    gamma = np.hypot(1, _COMPTON / wavelength)
    return np.pi * volume / (wavelength * gamma * np.sqrt(f2))


@numba.njit(nogil=True, cache=True)
def relrod(lab, wavelength, thickness, phi, half_width, gaussian=False):
    """Weight of each reflection by its excitation error (module docstring).

    Parameters
    ----------
    lab : ndarray of shape (n, 3)
        g in the lab frame, 1/Å.
    wavelength : float
        Å.
    thickness : ndarray of shape (n,)
        Å.
    phi, half_width : float
        Precession angle and half-width of the tilts to average over, rad.
    gaussian : bool
        Gauss's relrod instead of Lorentz's.

    Returns
    -------
    ndarray of shape (n,)
    """
    k0 = 1 / wavelength
    weight = np.empty(len(lab))
    for i in range(len(lab)):
        g = math.sqrt(lab[i, 0] ** 2 + lab[i, 1] ** 2)
        length = math.sqrt(g * g + (k0 + lab[i, 2]) ** 2)
        s = (k0 * k0 - length * length) / (2 * length)
        half = max(g * half_width, 1e-9)
        if gaussian:
            weight[i] = _gauss(s, half, g * phi, np.pi * thickness[i] / np.sqrt(3))
        else:
            slope = np.sqrt(2) * np.pi * thickness[i]
            c = slope * g * phi
            spread = _turn(slope * (s + half), c) - _turn(slope * (s - half), c)
            weight[i] = spread / (2 * slope * half)
    return weight


@numba.njit(nogil=True, cache=True)
def _turn(y, c):
    """arg(u + √(u² + c²)), u = 1 + i y."""
    if c == 0:
        return math.atan(y)
    real, imaginary = 1 - y * y + c * c, 2 * y
    size = math.sqrt(real * real + imaginary * imaginary)
    # The larger part of the root first: the other is their product, half of ``imaginary``, divided by it.
    large = math.sqrt((size + abs(real)) / 2)
    small = abs(y) / large
    across, along = (small, large) if real < 0 else (large, small)
    return math.atan2(y + math.copysign(along, y), 1 + across)


@numba.njit(nogil=True, cache=True)
def _gauss(s, half, swing, slope):
    """exp(-(slope s)²) averaged over s ± half and over s + swing cos ω."""
    steps = 8 + int(16 * slope * swing)  # points that lie closer than the relrod is wide
    total = 0.0
    for n in range(steps if swing > 0 else 1):
        off = s + swing * math.cos(np.pi * (n + 0.5) / steps) if swing > 0 else s
        total += math.erf(slope * (off + half)) - math.erf(slope * (off - half))
    return total * math.sqrt(np.pi) / (4 * slope * half) / (steps if swing > 0 else 1)


@numba.njit(nogil=True, cache=True)
def render(lab, intensity, pixel, radius_px, out):
    """Draw disks into a pattern.

    Parameters
    ----------
    lab : ndarray of shape (n, 3)
        g in the lab frame, 1/Å.
    intensity : ndarray of shape (n,)
        Sum of each disk.
    pixel : float
        1/Å per px.
    radius_px : float
    out : ndarray of shape (size_y, size_x)
        Added to; the beam is at its middle.
    """
    ny, nx = out.shape
    reach = int(np.ceil(radius_px + 0.5))
    disk = np.zeros((2 * reach + 2, 2 * reach + 2))
    for i in range(len(lab)):
        if intensity[i] <= 0:
            continue
        cy, cx = (ny - 1) / 2 + lab[i, 1] / pixel, (nx - 1) / 2 + lab[i, 0] / pixel
        y0, x0 = int(np.floor(cy)) - reach, int(np.floor(cx)) - reach
        total = 0.0
        for y in range(disk.shape[0]):
            for x in range(disk.shape[1]):
                off = math.sqrt((y0 + y - cy) ** 2 + (x0 + x - cx) ** 2)
                disk[y, x] = min(1.0, max(0.0, radius_px + 0.5 - off))
                total += disk[y, x]
        for y in range(disk.shape[0]):
            for x in range(disk.shape[1]):
                if 0 <= y0 + y < ny and 0 <= x0 + x < nx:
                    out[y0 + y, x0 + x] += intensity[i] * disk[y, x] / total
