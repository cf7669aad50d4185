"""Settings and results of template-derived masks."""

from dataclasses import dataclass

import numpy as np

from fourdstem.schema import quantity, setting


@dataclass(frozen=True)
class Template:
    """One species: where its columns are thought to be, or a picture that the image shall look like."""

    species: str = setting("", "Name of the species in results and figures.")
    element: str | None = setting(None, "Columns that hold this element, projected from a CIF along `zone_axis`.")
    phase: str | None = setting(None, "Phase of the element; null: the sample's first.")
    alone: bool = setting(False, "Only columns with no other element in them or within 0.7 Å.")
    sublattice: int | None = setting(
        None, "Columns found in `image` instead: 0 = the brightest sublattice, 1 = the next.", minimum=0, maximum=99
    )
    file: str | None = setting(None, "Picture of scan shape instead: an image file or an HDF5 file.")
    dataset: str | None = setting(None, "Dataset of an HDF5 file.")
    width_angstrom: float = setting(0.35, "Standard deviation of the Gaussian at each column.", above=0, maximum=5)
    region: tuple[int, int, int, int] | None = setting(
        None, "Part of the scan [y0, y1, x0, x1] from which the mask is learned; null: all of it.", minimum=0
    )
    control: tuple[int, int, int, int] | None = setting(
        None, "Part of the scan [y0, y1, x0, x1] that is known to lack the species.", minimum=0
    )
    learned: str | None = setting(None, "Take the mask of this species from another sample's template_mask.h5.")
    search_angstrom: float = setting(
        0.0,
        "How far from their sites columns are looked for, such as across a domain wall; 0: at their sites.",
        minimum=0,
        maximum=5,
    )


@dataclass(frozen=True)
class Polarisation:
    """Displacement of the columns of one species from the middle of those of another that surround them."""

    species: str = setting("", "Species that is displaced: oxygen, or the B-site.")
    against: str = setting("", "Species whose columns surround it: the A-site, or oxygen.")
    neighbours: int = setting(
        4, "How many columns of `against` surround one: 4 of a square, 2 beside an edge.", minimum=2, maximum=12
    )
    born_charge: float | None = setting(
        None,
        "Born effective charge of what is displaced, in elementary charges (all that moves together in "
        "`volume_cubic_angstrom`), along which its share of the polarisation is stated; null: displacements alone.",
        minimum=-100,
        maximum=100,
    )
    volume_cubic_angstrom: float | None = setting(None, "Volume that holds this charge once, Å³.", above=0, maximum=1e6)


@dataclass(frozen=True)
class Params:
    """Masks learned from templates, and what guards against believing them."""

    templates: tuple[dict, ...] = setting((), "One block per species; keys: see template_mask.templates[].")
    zone_axis: tuple[int, int, int] = setting(
        (0, 0, 1), "Direction [u, v, w] of the crystal along the beam.", minimum=-20, maximum=20
    )
    image: str = setting(
        "annular_dark_field",
        "Classical image in which columns are found and to which a CIF is registered.",
        choices=["annular_dark_field", "bright_field", "annular_bright_field", "integrated_centre_of_mass"],
    )
    distortion_order: int = setting(
        1, "Order of the polynomial by which columns may leave the lattice: 0 = none.", minimum=0, maximum=3
    )
    mask: str = setting("signed", "Which part of the correlation is kept.", choices=["signed", "positive", "negative"])
    weighting: str = setting(
        "correlation",
        "What a pixel's counts are multiplied by: the correlation, or that divided by the pixel's standard deviation.",
        choices=["correlation", "standardised"],
    )
    partial: bool = setting(False, "Take from each template what the other species' templates explain.")
    symmetrise: bool = setting(
        True,
        "Make masks equal at opposite pixels: what differs there only moves columns, and draws them to the template.",
    )
    slopes: bool = setting(
        True,
        "Also learn from the templates' slopes what opposite pixels differ by, and join both images. Needs symmetric, "
        "signed masks without significance, all learned in this scan.",
    )
    significance: float = setting(
        0.0, "Keep only correlations beyond this many standard deviations of chance; 0 = all.", minimum=0, maximum=10
    )
    inner: float = setting(0.0, "Inner radius of the masks in beam radii.", minimum=0, maximum=100)
    outer: float | None = setting(None, "Outer radius of the masks in beam radii; null: all pixels.", above=0)
    cross_fit: str = setting(
        "leave_one_out",
        "How images are made without the position's own data in the mask: closed form, halves of the counts, or folds.",
        choices=["leave_one_out", "split", "folds"],
    )
    fold_px: int = setting(8, "Folds: edge of the tiles that are left out together.", minimum=1, maximum=4096)
    detector_bin: int | None = setting(
        None, "Pixels summed along each detector axis for the masks; null: as few as leave no more than positions.",
        minimum=1, maximum=256,
    )  # fmt: skip
    core_angstrom: float = setting(0.35, "Within this distance a position belongs to a column.", above=0, maximum=5)
    background_angstrom: float = setting(0.8, "Farther than this from all columns is background.", above=0, maximum=20)
    shift_angstrom: float = setting(
        0.2, "How far templates are shifted to see whether peaks follow.", above=0, maximum=2
    )
    alpha: float = setting(0.01, "Level of the test behind each statement.", above=0, below=0.5)
    largest_pull: float = setting(
        0.2,
        "Positions are published where peaks follow the template by at most this share.",
        minimum=0,
        maximum=1,
    )
    seed: int = setting(0, "Seed of the halves of counts and of wrong sites.", minimum=0, maximum=2**31)
    polarisation: tuple[dict, ...] = setting(
        (), "Which species is measured against which; keys: see template_mask.polarisation[]."
    )


@dataclass(frozen=True)
class Result:
    """Masks and images per species, beside decoys and classical images; frame: as recorded, beam at `centre_px`."""

    species: tuple = quantity("species", "", "names of the species")
    template: np.ndarray = quantity("species scan_y scan_x", "", "template")
    mask: np.ndarray = quantity("species detector_y detector_x", "", "mask: weight of each pixel")
    image: np.ndarray = quantity("species scan_y scan_x", "counts", "image, cross-fitted")
    image_in_sample: np.ndarray = quantity("species scan_y scan_x", "counts", "image from the mask's own data")
    image_sigma: np.ndarray = quantity("species scan_y scan_x", "counts", "standard deviation by counting noise")
    decoy_template: np.ndarray = quantity("species scan_y scan_x", "", "template at empty sites")
    decoy_image: np.ndarray = quantity("species scan_y scan_x", "counts", "image of the empty sites, cross-fitted")
    correlation: np.ndarray = quantity("species", "", "image with template")
    correlation_in_sample: np.ndarray = quantity("species", "", "in-sample image with template")
    correlation_by_noise: np.ndarray = quantity("species", "", "what pure noise gives in-sample, √(g/(1+g))")
    decoy_correlation: np.ndarray = quantity("species", "", "image of empty sites with their template")
    wrong_correlation: np.ndarray = quantity("species", "", "image of wrong sites with their template")
    contrast: np.ndarray = quantity("species", "counts", "columns above background")
    contrast_sigma: np.ndarray = quantity("species", "counts", "standard error of the contrast")
    contrast_to_noise: np.ndarray = quantity("species", "", "contrast by counting noise of the background")
    background_scatter: np.ndarray = quantity("species", "counts", "spatial scatter of the background")
    decoy_contrast_to_noise: np.ndarray = quantity("species", "", "likewise of empty sites")
    wrong_contrast_to_noise: np.ndarray = quantity("species", "", "likewise of wrong sites")
    control_contrast: np.ndarray = quantity("species", "counts", "contrast in the control")
    control_contrast_sigma: np.ndarray = quantity("species", "counts", "its standard error")
    pull: np.ndarray = quantity("species", "", "shift of the peaks by shift of the template")
    statement: tuple = quantity("species", "", "detected, consistent with or not seen")
    reason: tuple = quantity("species", "", "why")
    cross_talk: np.ndarray = quantity("species species", "", "image of one species with template of another")
    cross_talk_partial: np.ndarray = quantity("species species", "", "likewise, partial masks")
    classical_name: tuple = quantity("classical", "", "names of the classical images")
    classical_image: np.ndarray = quantity("classical scan_y scan_x", "counts", "classical images")
    classical_contrast_to_noise: np.ndarray = quantity("classical species", "", "contrast to noise of each species")
    classical_cross_talk: np.ndarray = quantity("classical species", "", "classical image with template")
    classical_position_px: np.ndarray = quantity("column yx", "px", "columns in the best classical image")
    classical_best: tuple = quantity("species", "", "classical image of largest contrast to noise")
    column_species: np.ndarray = quantity("column", "", "index of the column's species")
    column_site_px: np.ndarray = quantity("column yx", "px", "where the template has the column")
    column_position_px: np.ndarray = quantity("column yx", "px", "where the image has it (NaN: pull too large)")
    column_sigma_px: np.ndarray = quantity("column yx", "px", "by counting noise")
    centre_px: np.ndarray = quantity("yx", "px", "beam in the masks")
    detector_bin: int = quantity("", "px", "pixels summed along each detector axis")
    joined_image: np.ndarray | None = quantity(
        "species scan_y scan_x", "counts", "image joined with that of the slopes, cross-fitted", default=None
    )
    joined_decoy_image: np.ndarray | None = quantity(
        "species scan_y scan_x", "counts", "likewise of empty sites", default=None
    )
    joined_sigma: np.ndarray | None = quantity(
        "species", "counts", "counting noise of the joined image; neighbours share it", default=None
    )
    joined_contrast: np.ndarray | None = quantity("species", "counts", "columns above background", default=None)
    joined_contrast_to_noise: np.ndarray | None = quantity("species", "", "by counting noise", default=None)
    joined_decoy_contrast_to_noise: np.ndarray | None = quantity("species", "", "of empty sites", default=None)
    joined_control_contrast: np.ndarray | None = quantity("species", "counts", "contrast in the control", default=None)
    joined_correlation: np.ndarray | None = quantity("species", "", "joined image with template", default=None)
    joined_cross_talk: np.ndarray | None = quantity(
        "species species", "", "joined image of one species with template of another", default=None
    )
    joined_pull: np.ndarray | None = quantity(
        "species", "", "shift of its peaks by shift of the template", default=None
    )
    lattice_angstrom: np.ndarray | None = quantity("vector yx", "Å", "lattice vectors in the scan", default=None)
    registration: float | None = quantity("", "", "correlation of the CIF's picture with the image", default=None)
    note: str = quantity("", "", "what to know of this job", default="")
    shared_pull: np.ndarray | None = quantity(
        "species", "", "pull of columns that share a peak and are fitted together", default=None
    )
    polarisation_name: tuple | None = quantity("pair", "", "what is measured against what", default=None)
    polarisation_pair: np.ndarray | None = quantity("cage", "", "index of the pair", default=None)
    polarisation_column: np.ndarray | None = quantity(
        "cage", "", "index of the displaced column among column_*", default=None
    )
    polarisation_centre_px: np.ndarray | None = quantity(
        "cage yx",
        "px",
        "middle of the columns that surround one (NaN: pull too large, or one is not found)",
        default=None,
    )
    polarisation_pm: np.ndarray | None = quantity("cage yx", "pm", "displacement from there", default=None)
    polarisation_sigma_pm: np.ndarray | None = quantity(
        "cage yx", "pm", "by counting noise of all of them", default=None
    )
    polarisation_uc_cm2: np.ndarray | None = quantity(
        "cage yx", "µC/cm²", "its share of the polarisation, where charge and volume were given", default=None
    )
