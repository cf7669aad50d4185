"""Settings and results of `preprocess`."""

from dataclasses import dataclass

import numpy as np

from fourdstem.schema import quantity, setting


@dataclass(frozen=True)
class Params:
    """Bad pixels, centre, descan, ellipse and noise of the detector."""

    centre_method: str = setting(
        "disk_correlation",
        "How the direct beam is found: correlation with a soft disk of measured radius; centre of mass near its "
        "maximum, or near that of the blurred pattern; or Friedel: correlation of the pattern with its own inversion.",
        choices=("disk_correlation", "centre_of_mass", "blurred_maximum", "friedel"),
    )
    ellipse_method: str = setting(
        "fit",
        "fit: from rings, declined with a reason where they cannot tell; none: no correction.",
        choices=("fit", "none"),
    )
    search_px: float | None = setting(
        None, "Half width of the window in which the beam is sought; null takes it from the scatter.", above=0
    )
    hot_sigma: float = setting(8.0, "A hot pixel exceeds its neighbours by so many standard deviations.", above=0)
    saturated_share: float = setting(
        0.01, "A pixel at its ceiling at this share of the positions is saturated.", above=0, maximum=1
    )
    outlier_sigma: float = setting(
        5.0, "A centre farther from the descan surface than so many standard deviations is replaced.", above=0
    )
    descan_ratio_limit: float = setting(
        1.4, "The surface is in force where the scatter about it is below this multiple of counting noise.", above=0
    )
    dark_share: float = setting(
        0.1,
        "A pattern without a beam and with less than this share of the usual total counts is dark, and has no centre.",
        minimum=0,
        maximum=1,
    )
    centre_sigma_limit_px: float = setting(
        0.5, "The verdict on the centre passes up to this median standard deviation.", above=0
    )
    outlier_share_limit: float = setting(
        0.1, "The verdict on the descan passes up to this share of outliers and dark patterns.", minimum=0, maximum=1
    )
    gain_scatter_limit: float = setting(
        0.1, "The gain is declined where levels scatter more than this about the mean-variance line.", above=0
    )
    minimum_azimuths: float = setting(
        9.0, "The ellipse is declined where no ring covers so many independent azimuths of half a turn.", above=0
    )
    ellipse_sigma_limit: float = setting(
        0.015, "The ellipse is declined where the standard deviation of a/b exceeds this.", above=0
    )
    camera_tolerance: float = setting(
        0.02, "The verdict on the camera length passes up to this relative deviation from the rings.", above=0
    )
    curl_contrast_limit: float = setting(
        0.3, "No scan rotation is proposed where rotating removes less than this share of the curl.", above=0, below=1
    )
    rotation_sigma_limit_deg: float = setting(
        3.0, "Nor where its standard deviation exceeds this; the flip must be certain as well.", above=0
    )
    rotation_tolerance_deg: float = setting(
        2.0, "The verdict on the scan rotation passes up to this deviation (or three standard deviations).", above=0
    )


@dataclass(frozen=True)
class Result:
    """What the recorded counts say about detector, beam and camera."""

    bad_pixel: np.ndarray = quantity("detector_y detector_x", "", "Bad pixels: 0 good, 1 dead, 2 hot, 3 saturated")
    valid: np.ndarray = quantity("detector_y detector_x", "", "Corrected pixels that every position can fill")
    centre_px: np.ndarray = quantity("scan_y scan_x y_x", "px", "Beam position in force")
    centre_measured_px: np.ndarray = quantity("scan_y scan_x y_x", "px", "Beam position, each pattern by itself")
    centre_surface_px: np.ndarray = quantity("scan_y scan_x y_x", "px", "Beam position, smooth descan surface")
    centre_sigma_px: np.ndarray = quantity("scan_y scan_x", "px", "Standard deviation of the measured position")
    centre_origin: np.ndarray = quantity("scan_y scan_x", "", "Origin of the position: 0 measured, 1 surface, 2 none")
    ellipse_ratio: float = quantity("", "", "Ellipse in force, a/b")
    ellipse_ratio_sigma: float = quantity("", "", "Standard deviation of a/b")
    ellipse_angle_deg: float = quantity("", "°", "Long axis, from +x towards +y")
    ellipse_angle_sigma_deg: float = quantity("", "°", "Standard deviation of the angle")
    beam_radius_px: float = quantity("", "px", "Radius of the direct disk")
    beam_edge_px: float = quantity("", "px", "Width of the edge of the direct disk")
    counts_per_electron: float = quantity("", "counts", "Detector gain")
    offset_counts: float = quantity("", "counts", "Detector offset")
    readout_noise_counts: float = quantity("", "counts", "Readout noise per pixel")
    pixel_proposed_inv_angstrom: float = quantity("", "1/Å", "Detector pixel that the rings propose")
    scan_rotation_proposed_deg: float = quantity("", "°", "Scan rotation that the curl proposes, or half a turn on")
    scan_rotation_sigma_deg: float = quantity("", "°", "Standard deviation of the proposed scan rotation")
    detector_flip_y_proposed: int = quantity("", "", "Flip that the curl proposes: 0, 1, or -1 = none")
    mean_pattern: np.ndarray = quantity("detector_y detector_x", "counts", "Mean of the recorded patterns")
    max_pattern: np.ndarray = quantity("detector_y detector_x", "counts", "Maximum of the recorded patterns")
    mean_pattern_corrected: np.ndarray = quantity("detector_y detector_x", "counts", "Mean of the corrected patterns")
    max_pattern_corrected: np.ndarray = quantity("detector_y detector_x", "counts", "Maximum of the corrected patterns")
    verdict: str = quantity("", "", "What passed, what did not, and why (JSON)")
