"""Figures of template-derived masks: images beside decoys and classical ones, masks, cross-talk, columns."""

from html import escape

import numpy as np
from matplotlib.colors import Normalize
from matplotlib.figure import Figure as Canvas
from matplotlib.patches import Rectangle

from fourdstem.figures import maps
from fourdstem.figures.style import FAINT, INK, PALETTE, save, styled

SHORT = {
    "bright_field": "BF", "annular_bright_field": "ABF", "enhanced_annular_bright_field": "eABF",
    "annular_dark_field": "ADF", "differential_phase": "DPC", "centre_of_mass_y": "CoM y",
    "centre_of_mass_x": "CoM x", "integrated_centre_of_mass": "iCoM",
}  # fmt: skip
MOST_ARROWS = 400
TIMES = (1, 2, 5, 10, 20, 50, 100)  # by which displacements are enlarged


@styled
def images(sample):
    """Draw, per species, template, image, joined image, image of empty sites, and the best classical image."""
    found = sample.template_mask
    blocks = {block["species"]: block for block in sample.settings("template_mask").get("templates", ())}
    joined = found.joined_image is not None
    kinds = (maps.PLAIN, *(maps.BAR,) * (4 if joined else 3))
    fig, axes = maps.panels(len(found.species), kinds, sample.scan_shape, sample.step, width=2.1)
    for k, (row, name) in enumerate(zip(axes, found.species, strict=True)):
        maps.show(row[0], _shade(found.template[k]), sample.step, f"{name}: template")
        limits = maps.span(found.image[k])
        shown = {"cmap": "gray", "label": "counts"}
        title = f"{found.statement[k]}, r = {found.correlation[k]:.2f}"
        maps.show(row[1], found.image[k], sample.step, title, limits=limits, **shown)
        _frames(row[1], blocks.get(name, {}), sample.step)
        if joined:
            title = f"joined, r = {found.joined_correlation[k]:.2f}"
            maps.show(
                row[2], found.joined_image[k], sample.step, title, limits=maps.span(found.joined_image[k]), **shown
            )
            _frames(row[2], blocks.get(name, {}), sample.step)
        title = f"empty sites, r = {found.decoy_correlation[k]:.2f}"
        maps.show(row[-2], found.decoy_image[k], sample.step, title, **shown)
        best = found.classical_best[k]
        rival = found.classical_image[list(found.classical_name).index(best)] if best else np.zeros(sample.scan_shape)
        unit = "px" if "centre_of_mass" in best and not best.startswith("int") else "arbitrary"
        unit = "counts" if best.endswith("field") else unit
        maps.show(row[-1], rival, sample.step, f"best classical: {SHORT.get(best, '–')}", cmap="gray", label=unit)
    return save(fig, sample.figures, "template_mask_images", _images_caption(found))


def _frames(ax, block: dict, step) -> None:
    """Outline the part of the scan that a mask was learned from, and the control (dashed)."""
    dy, dx = step or (1.0, 1.0)
    for key, colour, line in (("region", PALETTE[1], "-"), ("control", PALETTE[4], "--")):
        if block.get(key):
            y0, y1, x0, x1 = block[key]
            corner, size = ((x0 - 0.4) * dx, (y0 - 0.4) * dy), ((x1 - x0 - 0.2) * dx, (y1 - y0 - 0.2) * dy)
            ax.add_patch(Rectangle(corner, *size, fill=False, edgecolor=colour, linestyle=line, linewidth=1.3))


def _shade(values) -> np.ndarray:
    """Return a grey picture (scan_y, scan_x, 3) of a template."""
    low, high = float(np.min(values)), float(np.max(values))
    return np.repeat(((values - low) / max(high - low, 1e-12))[..., None], 3, axis=-1)


def _images_caption(found) -> str:
    lines = "; ".join(
        f"{escape(n)} <b>{s}</b>: {escape(why)}"
        for n, s, why in zip(found.species, found.statement, found.reason, strict=True)
    )
    joined = "the image <b>joined</b> with those of the template's slopes, which draw on neighbouring positions, "
    joined = joined if found.joined_image is not None else ""
    return (
        "<b>Images by template-derived masks</b>, cross-fitted: no position takes part in the mask that it is imaged "
        "by. Per species: its template, the image and what may be said, "
        f"{joined}the image that the same template makes of "
        "<b>empty sites</b>, and the classical image with the largest contrast to noise; r: correlation of an image "
        "with its template; outlined in orange: the part from which a mask was learned, dashed in blue: the control. "
        "Look for bright columns where the template has them, and for none at empty sites nor in the control: in "
        "a periodic crystal any template makes its own image. A small r: what is bright is mostly something else. "
        "“Detected” needs a mask learned elsewhere and a control without the "
        "species that is empty: nothing beyond its own error, and little error; all else is at most “consistent with”. "
        f"{lines}. Grey scales end at the 1st and 99th percentile."
    )


@styled
def masks(sample):
    """Draw the mask of each species."""
    found = sample.template_mask
    fig, (axes,) = maps.panels(1, (maps.BAR,) * len(found.species), sample.detector_shape, None, width=1.8)
    for ax, name, mask in zip(axes, found.species, found.mask, strict=True):
        top = float(np.percentile(np.abs(mask), 99.8)) or 1.0
        image = maps.pattern(
            ax, mask, sample.acquisition.pixel_inv_angstrom, name, norm=Normalize(-top, top), cmap="RdBu_r"
        )
        maps.colour_bar(ax, image, "weight")
    caption = (
        "<b>Masks</b>: what the counts of each pixel are multiplied by, the correlation of the pixel with the template "
        "(by its standard deviation where weights are standardised). Red: brighter at the columns. Speckle without any "
        "structure is noise: more positions, larger pixels or a `significance` help. "
        f"Detector pixels summed: {int(found.detector_bin)} x {int(found.detector_bin)}. "
        f"{escape(found.note).capitalize()}"
    )
    return save(fig, sample.figures, "template_mask_masks", caption)


@styled
def numbers(sample):
    """Draw contrast to noise beside classical images, and cross-talk."""
    found = sample.template_mask
    many = len(found.species)
    tall = max(
        2.3, 0.3 * len(found.classical_name) + 0.5, 0.2 * many * (3 if found.joined_image is not None else 2) + 0.5
    )
    fig = Canvas(figsize=(11.2, tall + 0.75))
    bottom, height = 0.6 / (tall + 0.75), (tall - 0.25) / (tall + 0.75)
    bars = fig.add_axes([0.06, bottom, 0.25, height])
    _bars(bars, found)
    ours = [found.cross_talk, found.cross_talk_partial]
    labels = [*found.species, *(f"{n}, partial" for n in found.species)]
    if found.joined_cross_talk is not None:
        ours.append(found.joined_cross_talk)
        labels += [f"{n}, joined" for n in found.species]
    ours = np.concatenate(ours)
    for left, values, rows, title in (
        (0.41, ours, labels, "cross-talk: masks"),
        (0.73, found.classical_cross_talk, [SHORT[n] for n in found.classical_name], "cross-talk: classical"),
    ):
        ax = fig.add_axes([left, bottom, min(0.04 * many + 0.02, 0.2), height])
        image = ax.imshow(values, cmap="RdBu_r", norm=Normalize(-1, 1), aspect="auto")
        ax.set(xticks=range(many), xticklabels=found.species, yticks=range(len(rows)), yticklabels=rows, title=title)
        ax.set_xlabel("template of")
        for (i, j), value in np.ndenumerate(np.asarray(values)):
            colour = "white" if abs(value) > 0.6 else INK
            ax.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=7, color=colour)
        maps.colour_bar(ax, image, "correlation")
    return save(fig, sample.figures, "template_mask_numbers", _numbers_caption(found))


def _bars(ax, found) -> None:
    groups = {
        "mask": np.abs(found.contrast_to_noise),
        "empty sites": np.abs(found.decoy_contrast_to_noise),
        "best classical": np.nanmax(np.abs(np.nan_to_num(found.classical_contrast_to_noise)), axis=0),
    }
    if found.joined_image is not None:
        groups["joined"] = np.abs(found.joined_contrast_to_noise)
        groups["joined, empty sites"] = np.abs(found.joined_decoy_contrast_to_noise)
    colours = {"mask": PALETTE[0], "empty sites": PALETTE[4], "best classical": PALETTE[1], "joined": PALETTE[5]}
    place, width = np.arange(len(found.species)), 0.85 / len(groups)
    for i, (name, values) in enumerate(groups.items()):
        at = place + width * (i - (len(groups) - 1) / 2)
        ax.bar(at, np.nan_to_num(values), 0.92 * width, color=colours.get(name, FAINT), label=name)
    ax.set(xticks=place, xticklabels=found.species, ylabel="contrast to counting noise", title="contrast to noise")
    ax.spines[["top", "right"]].set_visible(False)
    ax.set_ylim(0, 1.3 * max(float(np.nanmax(np.nan_to_num(v))) for v in groups.values()) or 1.0)
    ax.legend(loc="upper right")


def _numbers_caption(found) -> str:
    best = [SHORT.get(name, "–") for name in found.classical_best]
    pairs = ", ".join(f"{escape(n)}: {b}" for n, b in zip(found.species, best, strict=True))
    return (
        "<b>Contrast to noise</b>: mean of the positions at columns less mean of the background, by the counting noise "
        f"of a position of the background; best classical images: {pairs}. <b>Cross-talk</b>: correlation of an image "
        "(row) with the template of a species (column); partial masks are blind to what the other templates explain. "
        "A mask sees one position at a time; joined images and integrals of deflections draw on the neighbours, which "
        "makes their noise smaller and common to neighbours. "
        "Values off the diagonal as large as on it mean that the image shows both species."
    )


@styled
def columns(sample):
    """Draw where columns lie against their sites, for the species whose positions may be published."""
    found = sample.template_mask
    step = np.asarray(sample.step or (1.0, 1.0))
    shown = [k for k in range(len(found.species)) if np.isfinite(_moves(found, k, step)).any()] or [0]
    times = _enlarged(np.concatenate([_moves(found, k, step) for k in shown]), np.max(step * sample.scan_shape))
    across = min(len(shown), 2)
    rows = -(-len(shown) // across)
    fig, axes = maps.panels(rows, (maps.BAR,) * across, sample.scan_shape, sample.step, width=5.0)
    for ax in axes.flat[len(shown) :]:
        ax.set_axis_off()
    for ax, k in zip(axes.flat, shown, strict=False):
        move, place = _moves(found, k, step), found.column_site_px[found.column_species == k] * step
        limits = maps.span(found.image[k])
        maps.show(ax, found.image[k], sample.step, found.species[k], cmap="gray", limits=limits, label="counts")
        good = np.isfinite(move).all(axis=1)
        y, x = place[~good].T
        ax.scatter(x, y, s=14, marker="x", color=PALETTE[4], linewidths=1.0)
        stride = max(1, int(good.sum()) // MOST_ARROWS)
        (y, x), (dy, dx) = place[good][::stride].T, times * move[good][::stride].T
        ax.scatter(x, y, s=9, facecolors=PALETTE[6], edgecolors="black", linewidths=0.5, zorder=3)
        style = {"color": PALETTE[5], "width": 0.006, "angles": "xy", "scale_units": "xy", "scale": 1}
        ax.quiver(x, y, dx, dy, zorder=4, **style)
    return save(fig, sample.figures, "template_mask_columns", _columns_caption(found, step, times))


def _enlarged(move: np.ndarray, width: float) -> int:
    """Return how many times displacements (n, 2) are drawn, so that nine of ten stay below a fifteenth of the map."""
    length = np.linalg.norm(move, axis=1)
    length = length[np.isfinite(length)]
    most = width / 15 / max(float(np.quantile(length, 0.9)), 1e-9) if len(length) else 1.0
    return max((n for n in TIMES if n <= most), default=1)


def _moves(found, k: int, step) -> np.ndarray:
    """Return displacements (n, 2) in Å of one species' columns from their sites; NaN where not published."""
    mine = found.column_species == k
    return (np.asarray(found.column_position_px, float)[mine] - found.column_site_px[mine]) * step


def _columns_caption(found, step, times: int) -> str:
    lines = []
    for k, name in enumerate(found.species):
        move = _moves(found, k, step)
        good = np.isfinite(move).all(axis=1)
        if good.any():
            sigma = np.asarray(found.column_sigma_px, float)[found.column_species == k][good] * step
            mean, rms = 100 * move[good].mean(axis=0), 100 * np.sqrt((move[good] ** 2).mean())
            text = f"{good.sum()} of {len(move)} columns, mean ({mean[0]:+.1f}, {mean[1]:+.1f}) pm (y, x), "
            text += f"rms {rms:.1f} pm, counting noise {100 * np.median(sigma):.1f} pm, pull {found.pull[k]:.2f}"
            lines.append(f"{escape(name)}: {text}")
        else:
            lines.append(f"{escape(name)}: none (pull {found.pull[k]:.2f})")
    return (
        "<b>Columns against their sites.</b> Dots: sites in the template; arrows "
        f"from there to the peak in the image, {times} times enlarged; crosses: columns without a position. Only "
        "species whose peaks do not follow a shifted template (pull) have positions; columns of one species that share "
        "a peak are fitted together. Look for arrows that turn from one part of the scan to another; those that repeat "
        "with the cell are neighbours, which draw peaks nearer than their width, and counting noise does "
        f"not tell. {'; '.join(lines)}. All columns: template_mask.csv."
    )


@styled
def polarisation(sample):
    """Draw, per pair, how columns lie against the middle of those around them, over their image and across the scan."""
    found = sample.template_mask
    step, names = np.asarray(sample.step or (1.0, 1.0)), found.polarisation_name
    rows = [(np.flatnonzero(found.polarisation_pair == i), name) for i, name in enumerate(names)]
    fig, axes = maps.panels(len(rows), (maps.BAR, maps.CHART), sample.scan_shape, sample.step, width=5.0)
    lines = []
    for (ax, beside), (own, name) in zip(axes, rows, strict=True):
        good = own[np.isfinite(found.polarisation_pm[own]).all(axis=1)]
        move, sigma = (np.asarray(v, float)[good] for v in (found.polarisation_pm, found.polarisation_sigma_pm))
        place = np.asarray(found.polarisation_centre_px, float)[good] * step
        image = found.image[found.column_species[found.polarisation_column[own[0]]]] if len(own) else found.image[0]
        times = _enlarged(move / 100, np.max(step * sample.scan_shape))
        maps.show(ax, image, sample.step, name, cmap="gray", limits=maps.span(image), label="counts")
        (y, x), (dy, dx) = place.T, times * move.T / 100
        style = {"width": 0.006, "angles": "xy", "scale_units": "xy", "scale": 1, "pivot": "mid", "zorder": 4}
        ax.quiver(x, y, dx, dy, color=PALETTE[5], **style)
        _across(beside, place, move, sigma, sample)
        lines.append(_polarised(found, own, good, name, times))
    return save(fig, sample.figures, "template_mask_polarisation", _polarisation_caption(lines))


def _across(ax, place, move, sigma, sample) -> None:
    """Draw both components with their uncertainty along the axis of the scan on which they depend more."""
    spread = move - move.mean(axis=0) if len(move) else move
    apart = place - place.mean(axis=0) if len(place) else place
    along = int(np.argmax(np.abs(apart.T @ spread).max(axis=1) / (apart.std(axis=0) + 1e-9))) if len(move) else 1
    for k, label in enumerate(("along y", "along x")):
        style = {"fmt": "o", "ms": 3, "lw": 0.8, "color": PALETTE[(0, 1)[k]], "label": label}
        ax.errorbar(place[:, along], move[:, k], sigma[:, k], **style)
    ax.axhline(0, lw=0.6, color=FAINT)
    unit = "Å" if sample.step else "px"
    ax.set(xlabel=f"{'yx'[along]} / {unit}", ylabel="displacement / pm")
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend()


def _polarised(found, own, good, name: str, times: int) -> str:
    if not len(good):
        return f"{escape(name)}: none of {len(own)}"
    length = np.linalg.norm(np.asarray(found.polarisation_pm, float)[good], axis=1)
    sigma = np.asarray(found.polarisation_sigma_pm, float)[good]
    text = f"{escape(name)}: {len(good)} of {len(own)}, median length {np.median(length):.1f} pm, counting noise "
    text += f"{np.median(sigma):.1f} pm per axis, arrows {times} times enlarged"
    charge = np.asarray(found.polarisation_uc_cm2, float)[good]
    if np.isfinite(charge).all():
        text += f", median share of the polarisation {np.median(np.linalg.norm(charge, axis=1)):.0f} µC/cm²"
    return text


def _polarisation_caption(lines: list[str]) -> str:
    return (
        "<b>Displacement from the middle of the neighbours</b>: how far each column lies from the middle of the "
        "columns of another species that surround it; left over the image of the displaced species, right by component "
        "along the axis of the scan on which they depend more, with the standard deviation that counting noise gives. "
        "Only where all of these columns have a position (pull). Look for vectors that turn at a wall and are alike "
        "along it: what differs between like cells by more than the bars is strain, drift, vibration, or what "
        "neighbours do to peaks, and counting noise does not tell. "
        f"{'; '.join(lines)}. All vectors: template_mask_polarisation.csv."
    )
