"""Makes a results folder that looks like a finished sample, without running any stage."""

import json
from pathlib import Path

import numpy as np

from fourdstem import crystal, io, provenance
from fourdstem.calibration import Acquisition
from fourdstem.cube import Cube
from fourdstem.methods import (
    clusters,
    evaluation,
    grains,
    nmf,
    nonlocal_average,
    orientation,
    preprocess,
    template_mask,
    virtual_image,
)
from fourdstem.schema import as_settings

GOLD = "config/cif/gold.cif"
IRON = """data_iron
_cell_length_a 2.866
_cell_length_b 2.866
_cell_length_c 2.866
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
_symmetry_space_group_name_H-M 'P 1'
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
Fe1 Fe 0 0 0
Fe2 Fe 0.5 0.5 0.5
"""
PROCESS = {"stage": "test", "settings": {}, "code": "0123456789abcdef"}


def results(
    folder,
    *,
    scan_shape=(12, 16),
    detector=48,
    phases=1,
    calibrated=True,
    indexed=True,
    stages=None,
    declined=False,
    overlap=True,
) -> dict:
    """Write a results folder; return what `report.read` wants to know of it.

    Parameters
    ----------
    stages : sequence of str, optional
        What ran beside scan and preprocess; None means everything.
    """
    folder = Path(folder)
    rng = np.random.default_rng(0)
    everything = (
        *("virtual_image", "nonlocal_average", "nmf", "clusters", "template_mask"),
        *("orientation", "grains", "evaluation"),
    )
    stages = everything if stages is None else stages
    acquisition = _acquisition(scan_shape, calibrated)
    grain = _grains(scan_shape, rng)
    patterns = _patterns(grain, detector, rng)
    _scan(folder, acquisition, patterns)
    _save(folder / "preprocess.h5", acquisition, _preprocess(patterns, declined, rng))
    if "virtual_image" in stages:
        _save(folder / "virtual_image.h5", acquisition, _virtual_image(patterns))
    if "nonlocal_average" in stages:
        _average(folder, acquisition, patterns, grain, rng)
    if "nmf" in stages:
        cube = Cube(patterns.astype(np.float32))
        few = nmf.Params(source="corrected", rank_range=(4, 6), starts=2, bin=2)
        made = nmf.compute(cube, cube, few, 2.0, folder)
        _save(folder / "nmf.h5", acquisition, made)
        if "clusters" in stages:
            _save(folder / "clusters.h5", acquisition, _clusters(made, phases, indexed))
    if "template_mask" in stages:
        _save(folder / "template_mask.h5", acquisition, _template_mask(scan_shape, detector))
    found = {}
    if "orientation" in stages:
        for source, noise in (("corrected", 20.0), ("averaged", 1.0)):
            found[source] = _orientation(grain, phases, noise, indexed, rng, overlap)
            _save(folder / "orientation" / f"{source}.h5", acquisition, found[source])
    iron = folder.parent / "iron.cif"
    iron.write_text(IRON, encoding="utf-8")
    cif = {"gold": GOLD, "iron": str(iron)}
    if "grains" in stages:
        crystals = [crystal.read_cif(path, name) for name, path in list(cif.items())[:phases]]
        for source, one in found.items():
            step = acquisition.scan_step_angstrom
            made = grains.compute(one, crystals, grains.Params(minimum_px=2), source=source, scan_step=step)
            _save(folder / "grains" / f"{source}.h5", acquisition, made)
    if "evaluation" in stages:
        _save(folder / "evaluation.h5", acquisition, _evaluation(grain, found, rng))
    _sidecars(folder, stages)
    changed = {"nonlocal_average": {"window_half_width_px": [3, 4]}}
    return {
        "results": str(folder),
        "figures": str(folder / "figures"),
        "phases": dict(list(cif.items())[:phases]),
        "changed": changed,
    }


def _acquisition(scan_shape, calibrated: bool) -> Acquisition:
    if not calibrated:
        return Acquisition(scan_shape=scan_shape)
    return Acquisition(
        beam_energy_kev=200.0,
        convergence_mrad=1.0,
        scan_shape=scan_shape,
        scan_step_angstrom=(20.0, 20.0),
        detector_pixel_inv_angstrom=0.05,
    )


def _grains(shape, rng):
    """Voronoi cells of five seeds."""
    seeds = rng.uniform(0, 1, (5, 2)) * shape
    y, x = np.mgrid[: shape[0], : shape[1]]
    return np.argmin((y[..., None] - seeds[:, 0]) ** 2 + (x[..., None] - seeds[:, 1]) ** 2, axis=-1)


def _patterns(grain, size, rng):
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    expected = []
    for k in range(5):
        image = 40.0 * (y**2 + x**2 < 6)
        for turn in range(6):
            angle = turn * np.pi / 3 + 0.3 * k
            image += 6.0 * ((y - 14 * np.sin(angle)) ** 2 + (x - 14 * np.cos(angle)) ** 2 < 6)
        expected.append(image + 0.1)
    return rng.poisson(np.stack(expected)[grain]).astype(np.uint16)


def _save(path, acquisition, result) -> None:
    with io.create(path, PROCESS, acquisition) as file:
        file.write(result)


def _scan(folder, acquisition, patterns) -> None:
    with io.create(folder / "scan.h5", PROCESS, acquisition) as file:
        counts = file.stream(
            "counts", patterns.shape, "uint16", unit="counts", long_name="counts as recorded", frame="recorded"
        )
        counts[...] = patterns
        file.write_one("mask", np.ones(patterns.shape[2:], np.uint8), ("detector_y", "detector_x"), "", "mask")
        known = {key: "config" for key, value in as_settings(acquisition).items() if value is not None}
        file.write_acquisition(known)


def _preprocess(patterns, declined: bool, rng):
    shape, detector = patterns.shape[:2], patterns.shape[2:]
    y, x = np.mgrid[: shape[0], : shape[1]]
    surface = (np.array(detector) - 1) / 2 + 0.05 * np.stack([y, x], -1)
    bad = np.zeros(detector, np.uint8)
    bad[3, 4], bad[5, 40 % detector[1]], bad[30, 20] = 1, 2, 3 if declined else 2
    verdict = {
        "centre": {"pass": True, "reason": "median standard deviation 0.020 px per axis (limit 0.5 px)"},
        "descan": {"pass": True, "reason": "beam moves 0.6 px"},
        "ellipse": {"pass": not declined, "reason": "the rings hold 3 spots (limit 20)"},
    }
    values = {
        "bad_pixel": bad,
        "valid": np.ones(detector, np.uint8),
        "centre_px": surface,
        "centre_measured_px": surface + rng.normal(0, 0.03, surface.shape),
        "centre_surface_px": surface,
        "centre_sigma_px": np.full(shape, 0.02),
        "centre_origin": np.zeros(shape, np.uint8),
        "ellipse_ratio": 1.0 if declined else 1.03,
        "ellipse_ratio_sigma": np.nan if declined else 0.002,
        "ellipse_angle_deg": np.nan if declined else 25.0,
        "ellipse_angle_sigma_deg": np.nan if declined else 1.5,
        "beam_radius_px": 2.4,
        "mean_pattern": patterns.mean(axis=(0, 1)),
        "max_pattern": patterns.max(axis=(0, 1)).astype(float),
        "mean_pattern_corrected": patterns.mean(axis=(0, 1)),
        "max_pattern_corrected": patterns.max(axis=(0, 1)).astype(float),
        "verdict": json.dumps(verdict),
    }
    names = preprocess.Result.__dataclass_fields__
    return preprocess.Result(**{name: values.get(name, np.nan) for name in names})


def _virtual_image(patterns):
    middle = patterns[..., 21:27, 21:27].sum(axis=(2, 3)).astype(np.float32)
    return virtual_image.Result(
        bright_field=middle,
        annular_dark_field=patterns.sum(axis=(2, 3)).astype(np.float32) - middle,
        sum=patterns.sum(axis=(2, 3)).astype(np.float32),
        centre_of_mass_y=np.sin(middle),
        centre_of_mass_x=np.cos(middle),
        bright_field_outer_px=3.0,
        dark_field_inner_px=5.0,
        dark_field_outer_px=23.0,
    )


def _template_mask(shape, detector):
    """Two species with every number that a report shows; of the second one positions are not published."""
    rng = np.random.default_rng(1)
    kinds = template_mask.Result.__dataclass_fields__
    sizes = {"species": 2, "scan_y": shape[0], "scan_x": shape[1], "detector_y": detector, "detector_x": detector}
    sizes |= {"classical": 3, "column": 5, "yx": 2, "vector": 2, "pair": 1, "cage": 3}
    values = {name: rng.normal(size=[sizes[a] for a in kinds[name].metadata["axes"]]) for name in kinds}
    names = {"species": ("Fe", "Li"), "statement": ("detected", "not seen"), "reason": ("it shows < 3", "it does not")}
    names |= {"classical_best": ("bright_field", "integrated_centre_of_mass"), "note": "few positions"}
    names |= {"classical_name": ("bright_field", "annular_dark_field", "integrated_centre_of_mass")}
    site = rng.uniform(0, 1, (5, 2)) * (np.array(shape) - 1)
    place = np.where(np.arange(5)[:, None] < 3, site + 0.3, np.nan)
    columns = {"column_species": np.array([0, 0, 0, 1, 1]), "column_site_px": site, "column_position_px": place}
    columns |= {"polarisation_name": ("Fe against Li",), "polarisation_pair": np.zeros(3, int)}
    columns |= {"polarisation_column": np.arange(3), "polarisation_centre_px": site[:3]}
    columns |= {"polarisation_sigma_pm": np.abs(values["polarisation_sigma_pm"])}
    return template_mask.Result(**{**values, **names, **columns, "detector_bin": 2, "registration": 0.8})


def _clusters(found, phases, indexed):
    """Clusters that are gold and iron by turns; unless all are ``indexed``, the last one is not."""
    count = len(found.cluster_size_px)
    phase = np.where(np.arange(count) < count - (not indexed), np.arange(count) % phases, -1)
    known = np.where(phase < 0, np.nan, 1.0)
    several = phases > 1
    return clusters.Result(
        phase_name=("gold", "iron")[:phases],
        size_px=found.cluster_size_px,
        phase=phase.astype(np.int32),
        orientation=known[:, None] * [1.0, 0, 0, 0],
        correlation=np.where(phase < 0, 0.1, 0.8),
        second_correlation=0.6 * known,
        reliability=25 * known,
        ambiguous=(phase == 0).astype(np.uint8),
        zone_axis=np.where(phase[:, None] < 0, 0, [0, 0, 1]).astype(np.int32),
        zone_axis_off_deg=1.5 * known,
        phase_map=np.where(found.cluster < 0, -1, phase[found.cluster]).astype(np.int32),
        phase_correlation=np.full((count, phases), 0.7) if several else None,
        phase_reliability=10 * known if several else None,
    )


def _average(folder, acquisition, patterns, grain, rng) -> None:
    shape = patterns.shape[:2]
    means = np.stack([patterns[grain == k].mean(axis=0) if (grain == k).any() else patterns[0, 0] for k in range(5)])
    number = rng.uniform(1, 49, shape).astype(np.float32)
    values = {
        "effective_number": number,
        "self_weight": 1 / number,
        "sigma": rng.uniform(0.4, 0.6, shape).astype(np.float32),
        "members": 49,
        "lambda_": 1.1,
        "target": np.array([0.5, 0.34, 0.25], np.float32),
        "lambda_target": np.array([0.9, 1.1, 1.4], np.float32),
        "rank": 15,
        "valid": np.ones(patterns.shape[2:], np.uint8),
    }
    with io.create(folder / "nonlocal_average.h5", PROCESS, acquisition) as file:
        out = file.stream(
            "patterns", patterns.shape, "float32", unit="counts", long_name="averaged patterns", frame="corrected"
        )
        out[...] = means[grain]
        file.write(nonlocal_average.Result(**values))


def _orientation(grain, phases, noise, indexed, rng, overlap):
    shape = grain.shape
    own = rng.normal(size=(5, 4))
    quaternion = own[grain] + 0.01 * noise * rng.normal(size=(*shape, 4))
    quaternion *= np.sign(quaternion[..., :1]) / np.linalg.norm(quaternion, axis=-1, keepdims=True)
    phase = (grain % phases).astype(np.int16)
    phase[rng.uniform(size=shape) < (0.1 if indexed else 2)] = -1
    quaternion[phase < 0] = np.nan
    correlation = np.where(phase >= 0, np.clip(rng.normal(0.7, 0.1, shape), 0, 1), np.nan if not indexed else 0.1)
    reliability = np.where(phase >= 0, np.clip(rng.normal(40 / noise**0.3, 8, shape), 0, 100), np.nan)
    more = _two_phases(phase, correlation, noise) if phases > 1 else {}
    more |= {"scale_factor": 1.0004, "scale_factor_sigma": 0.001, "pixel_refined_inv_angstrom": 0.0203 / 1.0004}
    more |= {"centre_offset_px": np.array([0.01, -0.02]), "centre_offset_sigma_px": np.array([0.02, 0.03])}
    more |= _overlap(quaternion, phase, correlation) if overlap else {}
    return orientation.Result(
        orientation=quaternion.astype(np.float32),
        phase=phase,
        correlation=correlation.astype(np.float32),
        second_correlation=(0.8 * correlation).astype(np.float32),
        reliability=reliability.astype(np.float32),
        candidate_orientation=quaternion[..., None, :].astype(np.float32),
        candidate_correlation=correlation[..., None].astype(np.float32),
        candidate_phase=phase[..., None],
        ambiguous=(grain % 4 == 1).astype(np.uint8),
        phase_name=("gold", "iron")[:phases],
        **more,
    )


def _two_phases(phase, correlation, noise) -> dict:
    best = np.stack([correlation * np.where(phase == k, 1, 1 - 0.1 / noise) for k in range(2)], axis=-1)
    reliability = np.where(phase >= 0, 10 / noise, np.nan)
    return {"phase_correlation": best.astype(np.float32), "phase_reliability": reliability.astype(np.float32)}


def _overlap(quaternion, phase, correlation) -> dict:
    """A second crystal along the left side."""
    x = np.arange(phase.shape[1]) / phase.shape[1]
    known = phase >= 0
    return {
        "overlap_orientation": np.where(known[..., None], quaternion[..., ::-1], np.nan).astype(np.float32),
        "overlap_phase": phase,
        "overlap_correlation": np.where(known, 0.5 * correlation, np.nan).astype(np.float32),
        "overlap_share": np.where(known, 0.5 * (1 - x), np.nan).astype(np.float32),
        "overlap_significance": np.where(known, np.where(x < 0.3, 0.995, 0.7 - 0.5 * x), np.nan).astype(np.float32),
    }


def _evaluation(grain, found, rng):
    shape, sources = grain.shape, (*found, "box_3x3", "noise_free")
    angle = np.where(rng.uniform(size=(len(sources), *shape)) < 0.1, np.nan, rng.exponential(3, (len(sources), *shape)))
    rows = [("preprocess", "all", "centre_error_median", 0.03, "px")]
    masks = {"all": np.ones(shape, bool), "boundary": grain != np.roll(grain, 1, axis=1)}
    for source, values in zip(sources, angle, strict=True):
        for region, mask in masks.items():
            for limit in (2, 5):
                share = (
                    0.5
                    if source == "corrected"
                    else float((np.nan_to_num(values[mask], nan=np.inf) <= limit).mean())
                    if mask.any()
                    else 0.0
                )
                rows.append((source, region, f"within_{limit}_deg", share, "share"))
    columns = list(zip(*rows, strict=True))
    return evaluation.Result(
        source=sources,
        misorientation_deg=angle.astype(np.float32),
        centre_error_px=rng.uniform(0, 0.1, shape).astype(np.float32),
        identifiable=np.ones(shape, np.uint8),
        region=tuple(masks),
        region_mask=np.stack(list(masks.values())).astype(np.uint8),
        row_source=columns[0],
        row_region=columns[1],
        row_metric=columns[2],
        row_value=np.array(columns[3]),
        row_unit=columns[4],
        foreign_weight=rng.uniform(0, 1, shape).astype(np.float32),
    )


def _sidecars(folder, stages) -> None:
    mapped = ("orientation", "grains")
    jobs = ["scan", "preprocess", *(s for s in stages if s not in mapped)]
    jobs += [f"{s}_{source}" for s in mapped for source in ("corrected", "averaged") if s in stages]
    own = {"nonlocal_average": {"window_half_width_px": 3, "average_in": "counts"}}
    raw = [{"path": "raw/film.h5", "sha256": "ab" * 32, "bytes": 123456}]
    for job in jobs:
        content = {
            "stage": job.split("_corrected")[0].split("_averaged")[0],
            "sample": folder.name,
            "settings": own.get(job, {}),
            "code": "0123456789abcdef",
            "inputs": raw if job == "scan" else [],
            "outputs": [],
            "versions": {"python": "3.11.2", "numpy": "2.4.6"},
            "commit": "c" * 40,
            "dirty": False,
            "device": "cpu",
            "threads": 2,
            "seconds": 12.3,
            "peak_memory_mb": 456.7,
        }
        provenance.write_record(folder / "provenance" / f"{job}.json", content)
