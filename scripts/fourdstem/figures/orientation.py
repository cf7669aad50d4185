"""Figures of orientation mapping, before and after averaging."""

import numpy as np
from matplotlib.colors import to_rgb

from fourdstem.figures import ipf, maps
from fourdstem.figures.style import MISSING, PALETTE, save, styled

SOURCE_COLOURS = {"corrected": PALETTE[1], "denoised": PALETTE[4], "averaged": PALETTE[0]}


@styled
def ipf_maps(sample):
    """Draw crystal directions along z, x and y for every source, reliability beside them, and the colour keys."""
    columns = (maps.PLAIN, maps.PLAIN, maps.PLAIN, maps.BAR, maps.KEY)
    fig, axes = maps.panels(len(sample.orientation), columns, sample.scan_shape, sample.step, width=2.1)
    for row, (source, result) in zip(axes, sample.orientation.items(), strict=True):
        for ax, axis in zip(row, ipf.AXES, strict=False):
            title = f"{source}: along {_AXIS_WORDS[axis]}"
            maps.show(ax, ipf.colours(result, sample.crystals, axis), sample.step, title)
        _reliability(row[3], sample, result)
    ipf.keys(fig, axes[:, 4], sample.crystals)
    return save(fig, sample.figures, "orientation_ipf", _ipf_caption(sample))


_AXIS_WORDS = {"z": "beam (z)", "x": "x (right)", "y": "y (down)"}


def _phase_reliability(ax, sample, result) -> None:
    top = 100 * _top([_of_phase(r) / 100 for r in sample.orientation.values()])
    options = {"cmap": "plasma", "limits": (0, top), "label": "phase reliability (0–100)"}
    maps.show(ax, _of_phase(result), sample.step, "phase reliability", **options)


def _of_phase(result) -> np.ndarray:
    """Reliability of the phase where one was found; NaN throughout where there is but one to choose from."""
    known = result.phase_reliability is not None
    return np.where(result.phase >= 0, result.phase_reliability if known else np.nan, np.nan)


def _reliability(ax, sample, result) -> None:
    values = np.where(result.phase >= 0, result.reliability, np.nan)
    options = {"cmap": "plasma", "limits": (0, _reliability_top(sample)), "label": "reliability (0–100)"}
    maps.show(ax, values, sample.step, "reliability", **options)


def _reliability_top(sample) -> float:
    """Return one end for all reliability scales: the 99th percentile over the sources, up to the next ten."""
    values = np.concatenate([r.reliability[r.phase >= 0].ravel() for r in sample.orientation.values()])
    values = values[np.isfinite(values)]
    return float(min(np.ceil(np.percentile(values, 99) / 10) * 10, 100)) if values.size else 100.0


def _ipf_caption(sample) -> str:
    counts = "; ".join(
        f"{source}: {maps.count_text(int((r.phase < 0).sum()), r.phase.size, 'not indexed (grey)')}"
        for source, r in sample.orientation.items()
    )
    return (
        "<b>Which crystal direction points along each lab axis</b>, in the colours of the key (TSL convention, Laue "
        "group found from the atoms). Grains should be of one colour in all three maps with sharp edges; a bent grain "
        "grades smoothly. Salt and pepper means that the index is noise: compare with the reliability beside it. A "
        "grain that is uniform along z but speckled along x and y has the right zone axis and an uncertain in-plane "
        "angle, or a two-fold ambiguity. Kinematical matching cannot tell the two hands of a structure apart, "
        f"and neither can these colours. {counts}."
    )


@styled
def trust(sample):
    """Draw correlation and reliability of every source on the same scales, with histograms."""
    sources = list(sample.orientation)
    columns = (*(maps.BAR,) * len(sources), maps.CHART)
    fig, axes = maps.panels(2, columns, sample.scan_shape, sample.step, width=2.5)
    scores = [r.correlation for r in sample.orientation.values()]
    scales = {
        "correlation": ("viridis", (0.0, _top(scores)), "correlation (0–1)"),
        "reliability": ("plasma", (0.0, _reliability_top(sample)), "reliability (0–100)"),
    }
    for row, (name, (cmap, limits, label)) in zip(axes, scales.items(), strict=True):
        values = {s: np.where(r.phase >= 0, getattr(r, name), np.nan) for s, r in sample.orientation.items()}
        for ax, source in zip(row, sources, strict=False):
            maps.show(ax, values[source], sample.step, f"{source}: {name}", cmap=cmap, limits=limits, label=label)
        maps.histogram(row[-1], values, limits, name, label, SOURCE_COLOURS)
        row[-1].legend()
    return save(fig, sample.figures, "orientation_trust", _trust_caption(sample))


def _top(arrays) -> float:
    values = np.concatenate([np.ravel(a) for a in arrays])
    values = values[np.isfinite(values)]
    return float(min(np.ceil(values.max() * 10) / 10, 1.0)) if values.size else 1.0


def _trust_caption(sample) -> str:
    parts = []
    for source, result in sample.orientation.items():
        good = result.phase >= 0
        if good.any():
            medians = np.nanmedian(result.correlation[good]), np.nanmedian(result.reliability[good])
            parts.append(f"{source}: correlation {medians[0]:.2f}, reliability {medians[1]:.0f}")
    limit = sample.settings(f"orientation_{next(iter(sample.orientation))}").get("minimum_correlation")
    threshold = "" if limit is None else f" (a best correlation below {limit:g} counts as not indexed)"
    return (
        f"<b>How sure the index is.</b> Medians — {'; '.join(parts) or 'nothing was indexed'}{threshold}. Correlation "
        "says how alike pattern and template are; reliability, 100 (1 − Q₂/Q₁), how far the best orientation stands "
        "out from the best distinctly different one. High correlation with low reliability is the case to beware of: "
        "a pattern with few disks fits many orientations. After averaging both should rise inside grains and stay "
        "low along boundaries; a rise in correlation alone says only that there is less noise. Grey: not indexed."
        f"{_camera(sample)}"
    )


def _camera(sample) -> str:
    """Say which camera length and centre the indexed patterns fit."""
    parts = []
    for source, r in sample.orientation.items():
        if r.scale_factor is None or not np.isfinite(r.scale_factor):
            continue
        pixel, (dy, dx) = float(r.pixel_refined_inv_angstrom), r.centre_offset_px
        sigma, (sigma_y, sigma_x) = pixel * r.scale_factor_sigma / r.scale_factor, r.centre_offset_sigma_px
        applied = sample.settings(f"orientation_{source}").get("polish", False)
        parts.append(
            f"{source} {pixel:.5f} ± {sigma:.5f} 1/Å per px ({1 / float(r.scale_factor) - 1:+.2%} from the value in "
            f"force) and a beam ({dy:+.2f} ± {sigma_y:.2f}, {dx:+.2f} ± {sigma_x:.2f}) px off the middle (y, x), "
            f"{'applied' if applied else 'not applied'}"
        )
    return f" Camera length and centre that the disks of indexed patterns fit: {'; '.join(parts)}." if parts else ""


@styled
def phases(sample):
    """Draw the phase of every position for every source, with the reliability of the phase beside it."""
    fig, axes = maps.panels(len(sample.orientation), (maps.LEGEND, maps.BAR), sample.scan_shape, sample.step, width=2.6)
    for row, (source, result) in zip(axes, sample.orientation.items(), strict=True):
        picture = np.full((*result.phase.shape, 3), to_rgb(MISSING))
        for k in range(len(sample.crystals)):
            picture[result.phase == k] = to_rgb(PALETTE[k % len(PALETTE)])
        maps.show(row[0], picture, sample.step, f"{source}: phase")
        entries = [(c.name, PALETTE[k % len(PALETTE)], k) for k, c in enumerate(sample.crystals)]
        for name, colour, k in [*entries, ("not indexed", MISSING, -1)]:
            share = 100 * float((result.phase == k).mean())
            row[0].plot([], [], "s", color=colour, ms=7, label=f"{name} {share:.1f} %")
        row[0].legend(loc="center left", bbox_to_anchor=(1.0, 0.5), handletextpad=0.2)
        _phase_reliability(row[1], sample, result)
    return save(fig, sample.figures, "orientation_phase", _phase_caption(sample))


def _phase_caption(sample) -> str:
    medians = []
    for source, r in sample.orientation.items():
        if np.isfinite(_of_phase(r)).any():
            medians.append(f"{source} {np.nanmedian(_of_phase(r)):.1f}")
    return (
        "<b>Which phase fits best.</b> Phases should fill grains, not single pixels. Speckle of two phases means that "
        "their templates fit equally well: read the share of each phase with the reliability of the phase beside it, "
        "100 (1 − Q′/Q), where Q is the correlation of the phase shown and Q′ that of the best of all other phases, "
        f"refined likewise. Medians: {'; '.join(medians) or 'none'}. A phase that appears only along "
        "boundaries or at the rim is usually overlap or noise. Grey: not indexed."
    )
