"""Figures of preprocessing: what the detector saw, and where the beam was."""

import numpy as np

from fourdstem.figures import maps
from fourdstem.figures.style import save, styled
from fourdstem.geometry import ellipse_matrix

_MARKS = {1: ("dead", "#56b4e9"), 2: ("hot", "#f0e442"), 3: ("saturated", "#ff8fd0")}
_OUTLINE = "#7fffd4"


@styled
def mean_pattern(sample):
    """Draw mean and maximum pattern as recorded, with what was found in them, and the corrected ones below."""
    found = sample.preprocess
    corrected = found.mean_pattern_corrected is not None
    columns = (maps.BAR, maps.BAR, maps.KEY)
    fig, axes = maps.panels(2 if corrected else 1, columns, found.mean_pattern.shape, width=3.6)
    masked = np.zeros(found.mean_pattern.shape, bool) if sample.mask is None else sample.mask == 0
    masked = masked | ~np.isfinite(found.mean_pattern)
    for ax, values, title in zip(
        axes[0], (found.mean_pattern, found.max_pattern), ("mean, as recorded", "maximum, as recorded"), strict=False
    ):
        _draw(ax, sample, np.where(masked, np.nan, values), title, masked, found.bad_pixel == 0)
        exaggeration = _outlines(ax, sample)
    _marks(axes[0, 0], found.bad_pixel)
    lines, names = axes[0, 0].get_legend_handles_labels()
    dark = {"facecolor": "#1c1033", "edgecolor": "none", "framealpha": 1, "frameon": True, "labelcolor": "white"}
    axes[0, 2].legend(lines, names, loc="upper left", borderaxespad=0, borderpad=0.9, labelspacing=0.7, **dark)
    if corrected:
        missing = found.valid == 0
        pairs = ((found.mean_pattern_corrected, "mean, corrected"), (found.max_pattern_corrected, "maximum, corrected"))
        for ax, (values, title) in zip(axes[1], pairs, strict=False):
            _draw(ax, sample, values, title, missing | ~np.isfinite(values), True)
            _rings(ax, values.shape)
    _zoom(axes[-1, 2], sample, corrected)
    return save(fig, sample.figures, "preprocess_mean_pattern", _mean_caption(sample, exaggeration, corrected))


def _draw(ax, sample, values, title, missing, good) -> None:
    """Draw a pattern; ``good`` pixels alone set the scale, or one hot pixel would."""
    norm = maps.log_norm(values[~missing & good])
    image = maps.pattern(ax, values, sample.acquisition.pixel_inv_angstrom, title, norm=norm, missing=missing)
    maps.colour_bar(ax, image, "counts per pattern (log scale)")


def _outlines(ax, sample) -> int:
    """Draw centre, direct disk and ellipse; return by how much the ellipse's distortion is exaggerated."""
    found = sample.preprocess
    centre = np.nanmedian(found.centre_px.reshape(-1, 2), axis=0)
    ny, nx = found.mean_pattern.shape
    ax.plot(centre[1], centre[0], "+", color=_OUTLINE, ms=9, mew=1.1, label="centre (median)")
    ax.plot(*_circle(centre, found.beam_radius_px), color=_OUTLINE, lw=1.0, label="direct disk")
    ratio = float(found.ellipse_ratio)
    exaggeration = next(k for k in (10, 5, 2, 1) if k == 1 or ratio**k <= 1.25)
    radius = 0.7 * min(ny, nx) / 2
    ax.plot(*_circle(centre, radius), color="white", lw=0.8, ls=(0, (4, 3)), alpha=0.8, label="circle")
    if np.isfinite(ratio) and ratio > 1:
        matrix = ellipse_matrix(ratio**exaggeration, float(found.ellipse_angle_deg))
        label = "ellipse" + (f", distortion × {exaggeration}" if exaggeration > 1 else "")
        ax.plot(*_circle(centre, radius, matrix), color="#ffb000", lw=1.3, label=label)
    ax.set(xlim=(-0.5, nx - 0.5), ylim=(ny - 0.5, -0.5))
    return exaggeration


def _circle(centre, radius, matrix=None):
    """Return x and y of a circle, or of what a (y, x) matrix makes of it."""
    angle = np.linspace(0, 2 * np.pi, 361)
    offsets = radius * np.stack([np.sin(angle), np.cos(angle)])
    offsets = offsets if matrix is None else matrix @ offsets
    return centre[1] + offsets[1], centre[0] + offsets[0]


def _marks(ax, bad) -> None:
    for kind, (name, colour) in _MARKS.items():
        y, x = np.nonzero(bad == kind)
        if y.size:
            style = {"marker": "s", "s": 13, "facecolors": "none", "linewidths": 0.8}
            ax.scatter(x, y, edgecolors=colour, label=f"{name} ({y.size})", **style)


def _zoom(ax, sample, corrected: bool) -> None:
    """Show the direct disk, linear and magnified, in the lower part of an empty axes."""
    found = sample.preprocess
    values = found.mean_pattern_corrected if corrected else found.mean_pattern
    centre = np.nanmedian(found.centre_px.reshape(-1, 2), axis=0)
    centre = (np.array(values.shape) - 1) / 2 if corrected else centre
    half = 3.0 * max(float(found.beam_radius_px), 1.5)
    box = ax.get_position()
    size = ax.figure.get_size_inches()
    inside = ax.figure.add_axes([box.x0, box.y0, box.width, box.width * size[0] / size[1]])
    near = np.hypot(*(np.indices(values.shape) - centre[:, None, None])) < half
    top = np.nanmax(np.where(near & (found.bad_pixel == 0), values, np.nan))
    inside.imshow(values, cmap="magma", vmin=0, vmax=float(top) if top > 0 else 1.0, aspect="auto")
    inside.plot(*_circle(centre, found.beam_radius_px), color=_OUTLINE, lw=1.4)
    inside.plot(centre[1], centre[0], "+", color=_OUTLINE, ms=10, mew=1.4)
    inside.set(xlim=(centre[1] - half, centre[1] + half), ylim=(centre[0] + half, centre[0] - half))
    maps.bare(inside, "direct disk, linear")
    maps.scale_bar(inside, 2 * half, "px", False)


def _rings(ax, shape) -> None:
    middle = (np.array(shape) - 1) / 2
    for share in (0.35, 0.7):
        ax.plot(*_circle(middle, share * min(shape) / 2), color="white", lw=0.7, ls=(0, (4, 3)), alpha=0.7)
    ax.plot(middle[1], middle[0], "+", color=_OUTLINE, ms=9, mew=1.1)


def _mean_caption(sample, exaggeration: int, corrected: bool) -> str:
    found = sample.preprocess
    bad = ", ".join(f"{int((found.bad_pixel == k).sum())} {name}" for k, (name, _) in _MARKS.items())
    text = (
        "<b>The detector, averaged over the scan.</b> The cross must sit in the middle of the direct beam and the "
        f"aquamarine circle (radius {found.beam_radius_px:.2f} px) on its edge (magnified at the lower right); a "
        "smeared disk above that is sharp below is descan, removed by the correction. A circle beside the disk means "
        "that the centre was not found. "
    )
    text += _ellipse_words(found, exaggeration)
    text += f"Bad pixels: {bad}; squares that cluster on a disk are real intensity taken for a fault. "
    if corrected:
        valid = 100 * float((found.valid > 0).mean())
        text += (
            "Below, rings must follow the dashed circles: a ring that crosses them twice per turn says that the "
            f"ellipse is wrong. Grey: pixels that some position lacks ({100 - valid:.1f} % of the detector). "
        )
    return text + "Colour scales are logarithmic and start at the 2nd percentile."


def _ellipse_words(found, exaggeration: int) -> str:
    if not np.isfinite(found.ellipse_ratio_sigma):
        return f"No ellipse was measured; a/b = {found.ellipse_ratio:.4f} is in force. "
    text = f"Ellipse: a/b = {found.ellipse_ratio:.4f} ± {found.ellipse_ratio_sigma:.4f}"
    if np.isfinite(found.ellipse_angle_sigma_deg):
        text += f", long axis {found.ellipse_angle_deg:.1f}° ± {found.ellipse_angle_sigma_deg:.1f}°"
        text += " from +x towards +y (down)"
    drawn = found.ellipse_ratio > 1 and exaggeration > 1
    return text + (f"; its distortion is drawn {exaggeration} times too large. " if drawn else ". ")


@styled
def centre(sample):
    """Draw beam position measured, its smooth descan surface, what is left, its uncertainty and origin."""
    found = sample.preprocess
    measured, surface = (np.asarray(a, float) for a in (found.centre_measured_px, found.centre_surface_px))
    middle = np.nanmean(measured.reshape(-1, 2), axis=0) if np.isfinite(measured).any() else np.zeros(2)
    residual = measured - surface
    far = _symmetric(np.concatenate([(measured - middle).ravel(), (surface - middle).ravel()]))
    near = _symmetric(residual)
    columns = (maps.BAR, maps.BAR, maps.BAR, maps.LEGEND)
    fig, axes = maps.panels(2, columns, sample.scan_shape, sample.step, width=1.85)
    for row, name in enumerate("yx"):
        rows = (
            (measured[..., row] - middle[row], f"{name}: measured − mean", far),
            (surface[..., row] - middle[row], f"{name}: surface − mean", far),
            (residual[..., row], f"{name}: measured − surface", near),
        )
        for ax, (values, title, limit) in zip(axes[row], rows, strict=False):
            maps.show(ax, values, sample.step, title, cmap="PuOr", limits=(-limit, limit), label="px")
    maps.show(axes[0, 3], found.centre_sigma_px, sample.step, "standard deviation", label="σ per axis (px)")
    _origin(axes[1, 3], found.centre_origin, sample.step)
    return save(fig, sample.figures, "preprocess_centre", _centre_caption(sample, residual, middle))


def _symmetric(values) -> float:
    found = np.abs(values[np.isfinite(values)])
    return max(float(np.percentile(found, 99)) if found.size else 1.0, 0.05)


def _origin(ax, origin, step) -> None:
    colours = {0: ("measured", (0.0, 0.45, 0.70)), 1: ("surface", (0.90, 0.62, 0.0)), 2: ("none", (0.15, 0.15, 0.15))}
    picture = np.zeros((*np.shape(origin), 3))
    for value, (_, colour) in colours.items():
        picture[np.asarray(origin) == value] = colour
    maps.show(ax, picture, step, "position in force")
    for value, (name, colour) in colours.items():
        share = 100 * float((np.asarray(origin) == value).mean())
        ax.plot([], [], "s", color=colour, ms=6, label=f"{name} {share:.1f} %")
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), handletextpad=0.1)


def _centre_caption(sample, residual, middle) -> str:
    left = residual[np.isfinite(residual)]
    scatter = 1.4826 * float(np.median(np.abs(left - np.median(left)))) if left.size else float("nan")
    sigma = float(np.nanmedian(sample.preprocess.centre_sigma_px)) if left.size else float("nan")
    return (
        f"<b>Where the beam was</b>, about its mean ({middle[0]:.2f}, {middle[1]:.2f}) px (y, x). Descan is smooth: "
        "the surface should carry all large-scale variation, and measured − surface should look like noise. Grains "
        "that show in measured − surface mean that diffraction pulls the centre; stripes mean flyback or drift; "
        f"a jump means that the beam was lost. Robust scatter of measured − surface: {scatter:.3f} px, beside an "
        f"expected standard deviation of {sigma:.3f} px (median); much more than that is systematic, not counting "
        "noise. Grey: no beam found. Colour scales end at the 99th percentile."
    )
