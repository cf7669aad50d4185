"""What is told to the simulation, and the truth that it tells."""

from dataclasses import dataclass

import numpy as np

from fourdstem.schema import quantity, setting


@dataclass(frozen=True)
class Params:
    """A simulated specimen and how it was recorded."""

    specimen: str = setting(
        "film",
        "A nanocrystalline film of a cubic phase, or one crystal down a zone axis at atomic resolution.",
        choices=["film", "atomic"],
    )
    seed: int = setting(1, "Seed of the specimen and of the noise.", minimum=0, maximum=2**31)
    scan_shape: tuple[int, int] = setting((64, 64), "Positions along scan_y and scan_x.", minimum=8, maximum=4096)
    detector_shape: tuple[int, int] = setting(
        (128, 128), "Pixels along detector_y and detector_x.", minimum=32, maximum=2048
    )
    scan_step_angstrom: tuple[float, float] = setting(
        (20.0, 20.0), "Distance between positions along scan_y and scan_x.", above=0, maximum=1000
    )
    detector_pixel_inv_angstrom: float = setting(
        0.0203, "|g| per detector pixel, without the factor 2 pi.", above=0, maximum=0.5
    )
    beam_energy_kev: float = setting(200.0, "Energy of the beam electrons.", minimum=20, maximum=1000)
    convergence_mrad: float = setting(1.0, "Semi-angle of convergence; the radius of a disk.", minimum=0.1, maximum=60)
    precession_mrad: float = setting(17.0, "Precession angle; 0 = none.", minimum=0, maximum=50)
    precession_azimuths: int = setting(24, "Beam directions averaged over one turn.", minimum=3, maximum=360)
    scan_rotation_deg: float = setting(0.0, "Turns detector axes onto scan axes.", minimum=-360, maximum=360)
    detector_flip_y: bool = setting(False, "The detector image is mirrored top to bottom.")
    electrons_per_pattern: float = setting(
        120.0, "Electrons that meet the specimen at each position.", above=0, maximum=1e9
    )
    grains: int = setting(16, "Number of grains, the lamella not counted.", minimum=4, maximum=200)
    probe_sigma_px: float = setting(
        0.35, "Standard deviation of the probe in scan steps; softens boundaries.", minimum=0.05, maximum=5
    )
    twin_width_px: float = setting(2.0, "Width of the twin lamella in scan steps.", above=0, maximum=100)
    bend_deg: float = setting(4.0, "Change of orientation across the bent grain.", minimum=0, maximum=20)
    thickness_angstrom: tuple[float, float] = setting(
        (80.0, 200.0), "Thinnest and thickest part of the film.", minimum=20, maximum=2000
    )
    absorption: float = setting(
        0.06, "Imaginary part of the crystal potential, as a share of the real part.", minimum=0, maximum=0.5
    )
    inelastic_path_angstrom: float = setting(
        1000.0, "Mean free path of inelastic scattering into the diffuse background.", minimum=100, maximum=1e6
    )
    diffuse_width_inv_angstrom: float = setting(
        0.35, "Angular half-width of the diffuse background.", minimum=0.01, maximum=5
    )
    ellipse_ratio: float = setting(1.03, "Long by short axis of a distorted circle.", minimum=1, maximum=1.3)
    ellipse_angle_deg: float = setting(
        25.0, "Long axis, from +detector_x towards +detector_y (down).", above=-90, maximum=90
    )
    descan_px: float = setting(3.0, "Wander of the beam on the detector between scan corners.", minimum=0, maximum=50)
    disk_blur_px: float = setting(0.4, "Softness of the edge of a disk.", minimum=0.05, maximum=5)
    point_spread_px: float = setting(0.45, "Standard deviation of the detector's point spread.", minimum=0, maximum=5)
    point_spread_tail: float = setting(
        0.05, "Share of the point spread that lies in a wide tail.", minimum=0, maximum=0.5
    )
    hot_pixels: int = setting(12, "Number of pixels that add counts of their own.", minimum=0, maximum=400)
    hot_counts: float = setting(20.0, "Mean reading of a hot pixel.", above=0, maximum=60000)
    dead_pixels: int = setting(12, "Number of pixels that always read 0.", minimum=0, maximum=400)
    g_max_inv_angstrom: float = setting(1.8, "Reflections beyond this are left out.", minimum=0.5, maximum=4)
    beam_cutoff: float = setting(
        40.0,
        "Reflections take part while |excitation error| × extinction distance is below this.",
        above=1,
        maximum=200,
    )
    most_beams: int = setting(300, "Largest number of beams that interact.", minimum=2, maximum=1000)
    zone_axis: tuple[int, int, int] = setting(
        (0, 0, 1), "Atomic: direction [u, v, w] along which the beam travels.", minimum=-20, maximum=20
    )
    crystal_rotation_deg: float = setting(
        0.0, "Atomic: shortest projected lattice vector, from +x towards +y (down).", minimum=-180, maximum=180
    )
    vacancy_element: str | None = setting(None, "Atomic: this element is missing in the right part of the scan.")
    vacancy_share: float = setting(
        0.5, "Atomic: share of the scan in which the vacancy element is missing.", minimum=0, maximum=1
    )
    displaced_element: str | None = setting(None, "Atomic: this element lies beside the sites of the CIF.")
    displacement_angstrom: tuple[float, float] = setting(
        (0.0, 0.0),
        "Atomic: how far, across and along the shortest projected lattice vector.",
        minimum=-2,
        maximum=2,
    )


@dataclass(frozen=True)
class Result:
    """The truth of a simulated scan."""

    orientation: np.ndarray = quantity("scan_y scan_x quaternion", "", "true orientation")
    phase: np.ndarray = quantity("scan_y scan_x", "", "true phase")
    grain: np.ndarray = quantity("scan_y scan_x", "", "grain with the largest share")
    grain_fraction: np.ndarray = quantity("scan_y scan_x grain", "", "share of the probe in each grain")
    grain_phase: np.ndarray = quantity("grain", "", "phase of each grain")
    thickness_angstrom: np.ndarray = quantity("scan_y scan_x", "Å", "thickness of the film")
    twin: np.ndarray = quantity("scan_y scan_x", "", "lies mostly in the twin lamella")
    bent: np.ndarray = quantity("scan_y scan_x", "", "lies mostly in the bent grain")
    reference: np.ndarray = quantity("scan_y scan_x", "", "lies mostly in the unbent grain of the same orientation")
    twin_grain: int = quantity("", "", "index of the lamella along the axis grain")
    centre_px: np.ndarray = quantity("scan_y scan_x yx", "px", "true beam position")
    bad_pixel: np.ndarray = quantity("detector_y detector_x", "", "0 good, 1 dead, 2 hot")
    ellipse_ratio: float = quantity("", "", "true long by short axis")
    ellipse_angle_deg: float = quantity("", "°", "true angle of the long axis")
    electrons_per_pattern: float = quantity("", "counts", "electrons that meet the specimen, per pattern")
    recorded_electrons: np.ndarray = quantity("scan_y scan_x", "counts", "electrons recorded by good pixels")
    scattered_electrons: np.ndarray = quantity(
        "scan_y scan_x", "counts", "electrons recorded by good pixels outside the direct disk"
    )
    vacant: np.ndarray | None = quantity(
        "scan_y scan_x", "", "1 where the vacancy element is missing (atomic)", default=None
    )
    column_px: np.ndarray | None = quantity("column yx", "px", "true places of atom columns (atomic)", default=None)
    column_number: np.ndarray | None = quantity("column", "", "atomic number of each column (atomic)", default=None)


def acquisition(params: Params) -> dict:
    """Return what a vendor's file would say of this recording, by the keys of `calibration.Acquisition`.

    Ellipse, descan and bad pixels are left out: a user has to find them.
    """
    told = (
        "beam_energy_kev",
        "convergence_mrad",
        "scan_shape",
        "scan_step_angstrom",
        "detector_pixel_inv_angstrom",
        "scan_rotation_deg",
        "detector_flip_y",
        "precession_mrad",
    )
    return {key: getattr(params, key) for key in told}
