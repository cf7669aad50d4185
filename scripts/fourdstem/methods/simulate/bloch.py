"""Many-beam dynamical intensities of a parallel-sided crystal.

The Darwin-Howie-Whelan equations dψ/dt = 2πi A ψ, with A_gg = s_g + U_0/(2 k0) and A_gh = U_{g-h}/(2 k0), are
solved by the Taylor series of the scattering matrix exp(2πi A t) applied to the incident wave: exact for any
absorption, no eigenvectors, and the same bits whatever the number of threads.
Source: De Graef, Introduction to Conventional TEM (2003), chapter 5, doi 10.1017/CBO9780511615092.
"""

from dataclasses import dataclass

import numba
import numpy as np

from fourdstem.calibration import wavelength_angstrom
from fourdstem.crystal import Crystal, reflections, structure_factors


@dataclass(frozen=True)
class Potential:
    """Fourier coefficients of one crystal's electrostatic potential.

    Attributes
    ----------
    hkl : ndarray of int, shape (reflection, 3)
        The direct beam first, then every reflection that can be excited, double diffraction included.
    g : ndarray of shape (reflection, 3)
        In the crystal frame, 1/Å.
    table : ndarray of complex, shape (2 h + 1, 2 k + 1, 2 l + 1)
        U_hkl in 1/Å², absorption included; index 0 is the middle of each axis.
    wavenumber : float
        1/λ in 1/Å.
    """

    hkl: np.ndarray
    g: np.ndarray
    table: np.ndarray
    wavenumber: float

    def between(self, chosen: np.ndarray) -> np.ndarray:
        """Return U_{g-h} for the chosen reflections, shape (n, n)."""
        return self._at(self.hkl[chosen][:, None, :] - self.hkl[chosen][None, :, :])

    def from_direct(self) -> np.ndarray:
        """Return U_g for every reflection."""
        return self._at(self.hkl)

    def _at(self, hkl: np.ndarray) -> np.ndarray:
        h, k, m = np.moveaxis(hkl + np.array(self.table.shape) // 2, -1, 0)
        return self.table[h, k, m]


def potential(crystal: Crystal, energy_kev: float, g_max: float, absorption: float) -> Potential:
    """Tabulate the potential of a crystal.

    U_g = γ F_g / (π V), F from the 'xtables' scattering factors. The absorptive part is ``absorption`` times
    the real one, the usual proportional model.
    """
    wavenumber = 1 / wavelength_angstrom(energy_kev)
    relativistic = 1 + energy_kev / 510.99895
    hkl, _ = reflections(crystal, 2 * g_max)
    hkl = np.concatenate([np.zeros((1, 3), int), hkl])
    factors = structure_factors(crystal, hkl, factors="xtables")
    # crystallographic F = Σ f exp(+2πi g·r) belongs to waves exp(-2πi k·r); ours is the other sign
    coefficients = np.conj(factors) * relativistic / (np.pi * abs(np.linalg.det(crystal.lattice)))
    half = np.abs(hkl).max(axis=0) + 1
    table = np.zeros(2 * half + 1, complex)
    table[tuple((hkl + half).T)] = coefficients * (1 + 1j * absorption)
    g = hkl @ crystal.reciprocal
    inside = np.linalg.norm(g, axis=1) <= g_max
    everything = Potential(hkl[inside], g[inside], table, wavenumber)
    excited = _can_be_excited(everything)
    return Potential(everything.hkl[excited], everything.g[excited], table, wavenumber)


def _can_be_excited(candidates: Potential) -> np.ndarray:
    """Tell which reflections the direct beam feeds, in one step or in two."""
    direct = np.abs(candidates.from_direct())
    floor = 1e-6 * direct.max()
    allowed = np.flatnonzero(direct > floor)
    steps = candidates.hkl[:, None, :] - candidates.hkl[None, allowed, :]
    return (np.abs(candidates._at(steps)) > floor).any(axis=1)


def excitation_error(g: np.ndarray, beam: np.ndarray) -> np.ndarray:
    """Return s (1/Å, no 2π) of reflections ``g`` (n, 3) for an incident wavevector ``beam`` (3,), lab frame."""
    after = np.linalg.norm(beam + g, axis=-1)
    return (beam @ beam - after**2) / (2 * after)


def select(crystal: Potential, excitation: np.ndarray, cutoff: float, most: int) -> np.ndarray:
    """Choose the reflections that matter, direct beam first.

    A beam counts while |s| ξ = |s| k0 / |U_g| stays below ``cutoff``; at most ``most`` are kept. Weak and
    forbidden reflections are credited with 5 % of the strongest |U| so that double diffraction reaches them.
    """
    strength = np.abs(crystal.from_direct())
    strength = np.maximum(strength, 0.05 * strength[1:].max())
    weight = np.abs(excitation) * crystal.wavenumber / strength
    weight[0] = -1.0
    order = np.argsort(weight, kind="stable")[:most]
    return order[weight[order] <= cutoff]


@numba.njit(nogil=True, cache=True)
def propagate(structure, step_angstrom, steps):
    """Propagate the incident wave through equal slices.

    Parameters
    ----------
    structure : ndarray of complex, shape (n, n)
        A in 1/Å; the direct beam is index 0.
    step_angstrom : float
        Thickness of one slice.
    steps : int

    Returns
    -------
    ndarray of shape (steps, n)
        Intensity of every beam behind each slice; the incident wave has intensity 1.
    """
    n = structure.shape[0]
    columns = np.ascontiguousarray(structure.T) * (2j * np.pi * step_angstrom)
    wave = np.zeros(n, np.complex128)
    wave[0] = 1.0
    intensity = np.empty((steps, n))
    for step in range(steps):
        term = wave.copy()
        order = 0
        size = 1.0
        while size > 1e-9:
            order += 1
            following = np.zeros(n, np.complex128)
            for j in range(n):
                factor = term[j] / order
                for i in range(n):
                    following[i] += columns[j, i] * factor
            term = following
            size = 0.0
            for i in range(n):
                wave[i] += term[i]
                size = max(size, abs(term[i]))
        for i in range(n):
            intensity[step, i] = wave[i].real ** 2 + wave[i].imag ** 2
    return intensity


@dataclass(frozen=True)
class Spots:
    """Integrated intensities of one orientation.

    Attributes
    ----------
    g_lab : ndarray of shape (spot, 3)
        1/Å, the direct beam first.
    intensity : ndarray of shape (thickness, spot)
        Share of the incident electrons; slice i lies at (i + 1) × step.
    step_angstrom : float
    """

    g_lab: np.ndarray
    intensity: np.ndarray
    step_angstrom: float

    def at(self, thickness_angstrom: float) -> np.ndarray:
        """Return the intensities (spot,) at one thickness, interpolated linearly."""
        place = np.clip(thickness_angstrom / self.step_angstrom - 1, 0, len(self.intensity) - 1)
        low = min(int(place), len(self.intensity) - 2)
        part = place - low
        return (1 - part) * self.intensity[low] + part * self.intensity[low + 1]


def spots(
    crystal: Potential,
    matrix: np.ndarray,
    thickest_angstrom: float,
    *,
    precession_mrad: float,
    azimuths: int,
    cutoff: float,
    most: int,
    step_angstrom: float = 5.0,
) -> Spots:
    """Compute one orientation's intensities, averaged over the azimuths of precession.

    Parameters
    ----------
    crystal : Potential
    matrix : ndarray of shape (3, 3)
        Takes lab vectors to the crystal frame.
    thickest_angstrom : float
        Largest thickness that will be asked for.
    precession_mrad, azimuths : float, int
        Tilt of the beam and number of azimuths; no precession takes one direction.
    cutoff, most : float, int
        See `select`.
    """
    g_lab = crystal.g @ matrix
    steps = int(np.ceil(thickest_angstrom / step_angstrom)) + 1
    total = np.zeros((steps, len(g_lab)))
    azimuths = azimuths if precession_mrad > 0 else 1
    tilt = precession_mrad * 1e-3
    for turn in 2 * np.pi * np.arange(azimuths) / azimuths:
        direction = [np.sin(tilt) * np.cos(turn), np.sin(tilt) * np.sin(turn), np.cos(tilt)]
        excitation = excitation_error(g_lab, crystal.wavenumber * np.array(direction))
        chosen = select(crystal, excitation, cutoff, most)
        structure = crystal.between(chosen) / (2 * crystal.wavenumber)
        structure[np.diag_indices(len(chosen))] += excitation[chosen]
        total[:, chosen] += propagate(structure, step_angstrom, steps)
    used = total.max(axis=0) > 0
    return Spots(g_lab[used], total[:, used] / azimuths, step_angstrom)
