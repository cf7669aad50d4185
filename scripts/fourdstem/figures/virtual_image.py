"""Figures of virtual detectors."""

import numpy as np

from fourdstem.figures import maps
from fourdstem.figures.style import save, styled

_BLUE = "#7db4dc"  # grey would not be told from the image


@styled
def images(sample):
    """Draw bright field, annular dark field and centre of mass."""
    found = sample.virtual_image
    fig, (axes,) = maps.panels(1, (maps.BAR,) * 4, sample.scan_shape, sample.step, width=1.95)
    grey = {"cmap": "gray", "label": "counts per position", "missing": _BLUE}
    maps.show(axes[0], found.bright_field, sample.step, "bright field", **grey)
    maps.show(axes[1], found.annular_dark_field, sample.step, "annular dark field", **grey)
    y, x = (np.asarray(a, float) for a in (found.centre_of_mass_y, found.centre_of_mass_x))
    length, angle = np.hypot(y, x), np.rad2deg(np.arctan2(y, x))
    maps.show(axes[2], length, sample.step, "centre of mass: length", label="from beam (px)")
    cyclic = {"cmap": "twilight", "limits": (-180, 180), "label": "+x towards +y, down (°)", "missing": _BLUE}
    maps.show(axes[3], np.where(length > 0, angle, np.nan), sample.step, "centre of mass: direction", **cyclic)
    return save(fig, sample.figures, "virtual_image_images", _caption(found))


def _caption(found) -> str:
    noise = []
    for name, values in (("bright field", found.bright_field), ("dark field", found.annular_dark_field)):
        middle = float(np.nanmedian(values)) if np.isfinite(values).any() else 0.0
        if middle > 0:
            share = 100 / np.sqrt(middle)
            noise.append(f"{name} {maps.thousands(middle)} counts (counting noise {share:.1f} %)")
    return (
        f"<b>Virtual images.</b> Bright field: within {found.bright_field_outer_px:.1f} px of the beam; dark field: "
        f"{found.dark_field_inner_px:.1f} to {found.dark_field_outer_px:.1f} px. Grains and thickness should show in "
        f"both, dark in one where bright in the other. Medians: {'; '.join(noise) or 'none'}; contrast that is "
        "not well above that noise is noise (counts taken as electrons). A gradient across the whole field that "
        "follows the descan surface means that patterns were not centred; horizontal stripes mean an unsteady beam or "
        "scan. Centre of mass, of corrected patterns: steps at grain boundaries are diffraction, not fields, and the "
        "direction means nothing where the length is near 0. Grey scales end at the 1st and 99th percentile; blue was "
        "not measured; the colours of directions are cyclic."
    )
