"""Pictures of an inspected raw file."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from fourdstem.files import complete_or_absent


def save_inspection(inspection, folder, name: str) -> list[Path]:
    """Write what `inspection.inspect` saw as PNG.

    Parameters
    ----------
    inspection : inspection.Inspection
    folder : path
        Made if missing.
    name : str
        Begins the files' names; the raw file's own name tells several inspections apart.

    Returns
    -------
    list of Path
        ``{name}_patterns.png`` and, where there are virtual images, ``{name}_virtual_images.png``.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    patterns = {"mean of sampled patterns": inspection.mean_pattern, "maximum": inspection.max_pattern}
    shown = {title: _square_root(pattern) for title, pattern in patterns.items()}
    paths = [_save(folder / f"{name}_patterns.png", shown, "√counts")]
    images = {
        f"{kind}\n{label}": image
        for label in inspection.bright_field
        for kind, image in (
            ("inside the central disk", inspection.bright_field[label]),
            ("outside it", inspection.dark_field[label]),
        )
    }
    if images:
        paths.append(_save(folder / f"{name}_virtual_images.png", images, "counts"))
    return paths


def _square_root(pattern):
    return np.sqrt(np.clip(pattern, 0, None))


def _save(path: Path, images: dict, label: str) -> Path:
    """Write a grid of images, each with its colour bar; two columns."""
    rows = (len(images) + 1) // 2
    figure = Figure(figsize=(9, 4 * rows), layout="constrained")
    for axes, (title, image) in zip(figure.subplots(rows, 2, squeeze=False).ravel(), images.items(), strict=False):
        low, high = np.percentile(image, [0.1, 99.9])
        shown = axes.imshow(image, cmap="gray", vmin=low, vmax=max(high, low + 1e-12), interpolation="nearest")
        axes.set_title(title, fontsize=9)
        figure.colorbar(shown, ax=axes, label=label)
    with complete_or_absent(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
    return path
