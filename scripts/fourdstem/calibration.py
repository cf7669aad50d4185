"""Acquisition values and the physics that turns them into lengths and angles."""

from dataclasses import dataclass
from math import sqrt

from fourdstem.schema import setting


@dataclass(frozen=True)
class Acquisition:
    """How a scan was recorded; a key given here overrides what the file says."""

    beam_energy_kev: float | None = setting(None, "Energy of the beam electrons.", above=1, maximum=3000)
    convergence_mrad: float | None = setting(
        None, "Semi-angle of convergence; the radius of a disk.", minimum=0, maximum=200
    )
    scan_shape: tuple[int, int] | None = setting(None, "Positions along scan_y and scan_x.", minimum=1)
    scan_step_angstrom: tuple[float, float] | None = setting(
        None, "Distance between positions along scan_y and scan_x.", minimum=1e-3, maximum=1e6
    )
    detector_pixel_inv_angstrom: float | None = setting(
        None, "|g| per detector pixel, without the factor 2 pi.", minimum=1e-6, maximum=10
    )
    detector_pixel_mrad: float | None = setting(
        None,
        "Scattering angle per detector pixel; give this or detector_pixel_inv_angstrom.",
        minimum=1e-6,
        maximum=100,
    )
    scan_rotation_deg: float = setting(
        0.0, "Turns detector axes onto scan axes; positive from +x towards +y (down).", minimum=-360, maximum=360
    )
    detector_flip_y: bool = setting(False, "The detector image is mirrored top to bottom; applied before the rotation.")
    precession_mrad: float = setting(0.0, "Precession angle.", minimum=0, maximum=100)
    counts_per_electron: float | None = setting(None, "Detector gain; null estimates it from the data.", above=0)
    offset_counts: float | None = setting(None, "Detector offset; null estimates it from the data.")
    readout_noise_counts: float | None = setting(
        None, "Readout noise, standard deviation per pixel; null estimates it from the data.", minimum=0
    )
    mask: str | None = setting(None, "Image file, 0 = never use this pixel: beam stop, module gaps.")

    @property
    def wavelength_angstrom(self) -> float:
        """Relativistic electron wavelength in Å."""
        return wavelength_angstrom(self.beam_energy_kev)

    @property
    def pixel_inv_angstrom(self) -> float | None:
        """|g| per detector pixel in 1/Å, whichever of the two keys was given; None if neither was."""
        if self.detector_pixel_inv_angstrom is not None:
            return self.detector_pixel_inv_angstrom
        if self.detector_pixel_mrad is not None and self.beam_energy_kev is not None:
            return self.detector_pixel_mrad * 1e-3 / self.wavelength_angstrom
        return None


def wavelength_angstrom(energy_kev: float) -> float:
    """Relativistic electron wavelength in Å for a beam energy in keV.

    λ = h / sqrt(2 m e U (1 + e U / (2 m c²))), with the constants folded in.
    """
    volt = energy_kev * 1e3
    return 12.264259661581491 / sqrt(volt * (1 + 0.9784754918e-6 * volt))
