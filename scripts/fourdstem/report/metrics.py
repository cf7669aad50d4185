"""The few numbers and the picture of a sample that stand beside those of other samples."""

import numpy as np

from fourdstem.figures import ipf
from fourdstem.report.sample import Sample
from fourdstem.report.words import complaints

THUMBNAIL_PX = 96


def metrics(sample: Sample) -> dict:
    """Return JSON values: shape, medians, shares, verdicts, number of warnings, thumbnail. Nothing that varies."""
    found = sample.preprocess
    ellipse = sample.verdict.get("ellipse", {}).get("pass", False)
    values = {
        "positions": int(np.prod(sample.scan_shape)),
        "counts_per_pattern": _plain(sample.counts_per_pattern),
        "centre_sigma_px": _median(found.centre_sigma_px),
        "ellipse_ratio": _plain(found.ellipse_ratio) if ellipse else None,
        "ellipse_angle_deg": _plain(found.ellipse_angle_deg) if ellipse else None,
        "beam_radius_px": _plain(found.beam_radius_px),
        "bad_pixels": int((found.bad_pixel > 0).sum()),
    }
    if sample.nonlocal_average is not None:
        values["effective_number"] = _median(sample.nonlocal_average.effective_number)
        values["self_weight"] = _median(sample.nonlocal_average.self_weight)
    values |= _of_components(sample) | _of_masks(sample.template_mask)
    for source, result in sample.orientation.items():
        good = result.phase >= 0
        values[f"{source}_indexed_share"] = _plain(good.mean())
        values[f"{source}_correlation"] = _median(result.correlation[good])
        values[f"{source}_reliability"] = _median(result.reliability[good])
        if result.calibration_right is not None:
            values[f"{source}_probability"] = _plain(np.nanmean(result.probability))
    for source, found in sample.grains.items():
        values[f"{source}_grains"] = len(found.grain_size_px)
        values[f"{source}_kam_floor_deg"] = _median(found.kam_floor_deg)
    for source, region, metric, value in sample.scores:
        if region == "all" and metric.startswith(("within_", "centre_error")):
            values[f"{source}_{metric}"] = _plain(value)
    return {
        "sample": sample.name,
        "scan_shape": list(sample.scan_shape),
        "detector_shape": list(sample.detector_shape),
        "values": values,
        "verdicts": {name: bool(v["pass"]) for name, v in sample.verdict.items()},
        "warnings": len(complaints(sample)),
        "thumbnail": thumbnail(sample),
    }


def _of_components(sample: Sample) -> dict:
    """Return how many components and clusters there are, and how many clusters have a phase."""
    if sample.nmf is None:
        return {}
    values = {"components": int(sample.nmf.chosen_rank), "clusters": len(sample.nmf.cluster_size_px)}
    if sample.clusters is not None:
        values["named_clusters"] = int((np.asarray(sample.clusters.phase) >= 0).sum())
    return values


def _of_masks(found) -> dict:
    """Return contrast to noise and pull per species of the template masks."""
    names = () if found is None else found.species
    values = {f"mask_{name}_contrast_to_noise": _plain(found.contrast_to_noise[k]) for k, name in enumerate(names)}
    values |= {f"mask_{name}_pull": _plain(found.pull[k]) for k, name in enumerate(names)}
    if found is not None and found.joined_image is not None:
        ratio = found.joined_contrast_to_noise
        values |= {f"mask_{name}_joined_contrast_to_noise": _plain(ratio[k]) for k, name in enumerate(names)}
    return values


def thumbnail(sample: Sample) -> str:
    """Return a small PNG, base64: the IPF map along the beam, else the bright field, else nothing."""
    if sample.orientation:
        picture = ipf.colours(list(sample.orientation.values())[-1], sample.crystals, "z")
    elif sample.virtual_image is not None:
        image = np.asarray(sample.virtual_image.bright_field, float)
        low, high = np.nanpercentile(image, (1, 99))
        grey = np.nan_to_num(np.clip((image - low) / max(high - low, 1e-12), 0, 1))
        picture = np.repeat(grey[..., None], 3, axis=-1)
    else:
        return ""
    stride = max(1, -(-max(picture.shape[:2]) // THUMBNAIL_PX))
    return ipf.png_base64(picture[::stride, ::stride])


def _median(values) -> float | None:
    values = np.asarray(values, float)
    values = values[np.isfinite(values)]
    return _plain(np.median(values)) if values.size else None


def _plain(value) -> float | None:
    return round(float(value), 6) if value is not None and np.isfinite(value) else None
