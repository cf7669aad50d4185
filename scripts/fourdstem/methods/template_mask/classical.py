"""Classical images of the same counts: fields, segments, centre of mass and their integrals."""

from dataclasses import dataclass

import numpy as np

from fourdstem.geometry import corrected_to_recorded
from fourdstem.methods.template_mask import stream

NAMES = (
    "bright_field", "annular_bright_field", "enhanced_annular_bright_field", "annular_dark_field",
    "differential_phase", "centre_of_mass_y", "centre_of_mass_x", "integrated_centre_of_mass",
)  # fmt: skip
SLOWEST = 0.02  # of the largest frequency; slower variations of an integral are noise of few frequencies


@dataclass(frozen=True)
class Classical:
    """Images and counting noise, (classical, scan_y, scan_x), by `NAMES`."""

    image: np.ndarray
    variance: np.ndarray

    def __getitem__(self, name: str) -> np.ndarray:
        """Return an image by its name."""
        return self.image[NAMES.index(name)]


def unseen(scan_shape) -> Classical:
    """Return images in which nothing can be found, for templates that need none."""
    nothing = np.broadcast_to(np.nan, (len(NAMES), *scan_shape))
    return Classical(nothing, nothing)


def make(source: stream.Source, beam_radius_px: float, step, matrix=None) -> Classical:
    """Read the scan once for all classical images; see `summing` and `found`."""
    job = summing(source, beam_radius_px, matrix)
    stream.run(job)
    return found(job, step)


def summing(source: stream.Source, beam_radius_px: float, matrix=None) -> stream.Images:
    """Return what reads the scan for the classical images.

    Parameters
    ----------
    source : Source
        Not binned.
    beam_radius_px : float
    matrix : ndarray of shape (2, 2), optional
        `geometry.corrected_to_recorded`, by which detector axes are turned onto those of the scan.
    """
    if matrix is None:
        matrix = corrected_to_recorded(1.0, 0.0, 0.0, False)
    y, x = (np.arange(n) - c for n, c in zip(source.shape, source.centre_px, strict=True))
    recorded = np.stack(np.meshgrid(y, x, indexing="ij"))
    uy, ux = np.einsum("ij,jyx->iyx", np.linalg.inv(matrix), recorded)
    r = np.hypot(uy, ux)
    edge = min(min(c, n - 1 - c) for n, c in zip(source.shape, source.centre_px, strict=True))
    disk, inner = r <= beam_radius_px, r <= 0.5 * beam_radius_px
    dark = (r > 1.1 * beam_radius_px) & (r <= edge)
    halves = [disk * np.sign(uy), disk * np.sign(ux)]
    weights = [inner, disk & ~inner, dark, *halves, uy, ux, uy**2, ux**2, np.ones_like(r)]
    columns = np.stack([(w * source.usable).reshape(-1) for w in weights])
    return stream.Images(source, [(0, columns)])


def found(job: stream.Images, step) -> Classical:
    """Return the classical images of what was summed.

    Bright field: within half of the beam's radius; annular bright field: the rest of the disk; enhanced: annular less
    inner bright field; annular dark field: beyond 1.1 radii, to the circle that touches the edge; differential phase:
    integral of the differences of opposite halves of the disk (Close et al., doi:10.1016/j.ultramic.2015.09.002);
    integrated centre of mass: Lazić et al., doi:10.1016/j.ultramic.2015.10.011. Integrals bright at atoms.

    Parameters
    ----------
    job : Images
        Of `summing`.
    step : (float, float)
        Å.
    """
    bf, abf, adf, dy, dx, my, mx, my2, mx2, total = job.made
    whole = bf + abf
    total = np.where(total > 0, total, np.nan)
    com, com2 = np.stack([my, mx]) / total, np.stack([my2, mx2]) / total**2
    # A column draws the beam towards it, so that the integral of the deflection is bright there.
    phase, phase2 = integrate(np.stack([dy, dx]), np.stack([whole, whole]), step)
    icom, icom2 = integrate(com, com2, step)
    images = [bf, abf, abf - bf, adf, phase, *com, icom]
    variances = [bf, abf, abf + bf, adf, phase2, *com2, icom2]
    return Classical(np.nan_to_num(np.stack(images)), np.nan_to_num(np.stack(variances)))


def integrate(field: np.ndarray, variance: np.ndarray, step) -> tuple[np.ndarray, np.ndarray]:
    """Return the scalar whose gradient fits a field (2, scan_y, scan_x) best, and its counting noise.

    Solved in Fourier space over the scan, mirrored so that its edges do not meet; noise is white and passes the same
    filter.
    """
    known = np.isfinite(field)
    mean = np.where(known, field, 0).sum(axis=(1, 2)) / np.maximum(known.sum(axis=(1, 2)), 1)
    field = np.nan_to_num(field - mean[:, None, None])
    ny, nx = field.shape[1:]
    fy = np.block([[field[0], field[0][:, ::-1]], [-field[0][::-1], -field[0][::-1, ::-1]]])
    fx = np.block([[field[1], -field[1][:, ::-1]], [field[1][::-1], -field[1][::-1, ::-1]]])
    ky, kx = np.fft.fftfreq(2 * ny, step[0])[:, None], np.fft.fftfreq(2 * nx, step[1])[None, :]
    k2 = ky**2 + kx**2
    slow = k2 < (SLOWEST * np.sqrt(k2.max())) ** 2
    gain = np.where(slow, 0.0, 1 / (2 * np.pi * np.where(slow, 1.0, k2)))
    potential = np.fft.ifft2(-1j * gain * (ky * np.fft.fft2(fy) + kx * np.fft.fft2(fx))).real[:ny, :nx]
    level = [float(v[np.isfinite(v)].mean()) if np.isfinite(v).any() else 0.0 for v in variance]
    noise = level[0] * np.mean((gain * ky) ** 2) + level[1] * np.mean((gain * kx) ** 2)
    return potential, np.full((ny, nx), noise)
