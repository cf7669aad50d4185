"""Figure of second orientations, where crystals overlap."""

from types import SimpleNamespace

import numpy as np

from fourdstem.figures import ipf, maps
from fourdstem.figures.style import save, styled
from fourdstem.methods.orientation import OVERLAP_SHARE, OVERLAP_SIGNIFICANCE, overlapping


@styled
def second(sample):
    """Draw second orientations where they count, their share and significance, for every source that has them."""
    found = {source: r for source, r in sample.orientation.items() if r.overlap_phase is not None}
    columns = (maps.PLAIN, maps.PLAIN, maps.BAR, maps.BAR, maps.KEY)
    fig, axes = maps.panels(len(found), columns, sample.scan_shape, sample.step, width=2.1)
    for row, (source, result) in zip(axes, found.items(), strict=True):
        here = overlapping(result)
        one = SimpleNamespace(phase=np.where(here, result.overlap_phase, -1), orientation=result.overlap_orientation)
        maps.show(row[0], ipf.colours(result, sample.crystals, "z"), sample.step, f"{source}: first, z")
        maps.show(row[1], ipf.colours(one, sample.crystals, "z"), sample.step, f"{source}: second, z")
        share = np.where(here, 100 * result.overlap_share, np.nan)
        options = {"cmap": "viridis", "limits": (0, 100), "label": "share of the second (%)"}
        maps.show(row[2], share, sample.step, "share", **options)
        options = {"cmap": "plasma", "limits": (0, 1), "label": "significance (0–1)"}
        maps.show(row[3], result.overlap_significance, sample.step, "significance", **options)
    ipf.keys(fig, axes[:, 4], sample.crystals)
    return save(fig, sample.figures, "orientation_overlap", _caption(found))


def _caption(found) -> str:
    counts = "; ".join(
        f"{source}: {maps.count_text(int(overlapping(r).sum()), int((r.phase >= 0).sum()), 'indexed positions')}"
        for source, r in found.items()
    )
    return (
        "<b>Where a second crystal lies under or over the first.</b> The disks of the first orientation were taken out "
        "of each pattern and what was left was indexed again. First and second orientation along the beam (z); the "
        "second is shown (grey: none) where its significance is at least "
        f"{OVERLAP_SIGNIFICANCE:g} and its share at least {100 * OVERLAP_SHARE:g} %. Significance is the share of "
        "simulated single crystals, with the disks, background and noise of this scan, whose second orientation "
        "correlates less. It knows no Kikuchi lines, streaks or calibration that is off, and below the threshold "
        "it flags many single crystals. The share is the part of the Bragg intensity that the second alone explains, a "
        "lower bound where both share disks, as twins do. Overlaps should line grain boundaries or fill whole grains; "
        "salt and pepper, or a second orientation wherever the first is unreliable, means that the first is wrong "
        "there. On averaged patterns, whose noise is small, nearly all is significant: there the share decides, and a "
        f"whole grain of a share near the threshold is what the templates miss, not a second crystal. {counts}."
    )
