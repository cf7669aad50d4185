"""The tables of a report."""

from pathlib import Path

import numpy as np

from fourdstem.figures.maps import thousands
from fourdstem.methods.clusters import axis_text
from fourdstem.methods.clusters import names as cluster_names
from fourdstem.report.sample import Sample
from fourdstem.report.text import Text, number, percent, table
from fourdstem.schema import unit_of

_WHAT = {
    "centre": "beam centre", "descan": "descan surface", "ellipse": "ellipse", "camera": "camera length",
    "rotation": "scan rotation and flip", "gain": "detector gain", "pixels": "detector pixels",
}  # fmt: skip


def verdicts(sample: Sample) -> Text:
    """Return preprocessing's verdicts, each with the numbers and thresholds behind it."""
    rows = []
    for name, verdict in sample.verdict.items():
        mark = '<span class="pass">✓ pass</span>' if verdict["pass"] else '<span class="declined">✗ declined</span>'
        rows.append((_WHAT.get(name, name), Text(mark), verdict["reason"]))
    return table(("measured", "verdict", "why"), rows)


def settings(sample: Sample) -> Text:
    """Return the settings that differ from their defaults."""
    rows = [
        (stage, key, number(value), number(default), unit_of(key))
        for stage, values in sample.changed.items()
        for key, (value, default) in values.items()
    ]
    if not rows:
        return Text("<p>Every setting has its default.</p>")
    return table(("stage", "setting", "value", "default", "unit"), rows)


def acquisition(sample: Sample) -> Text:
    """Return the acquisition values in force, each with its origin."""
    rows = [
        (key, _flag(value) if key == "detector_flip_y" else number(value, 6), unit_of(key), origin)
        for key, (value, origin) in sorted(sample.origins.items())
    ]
    return table(("value", "in force", "unit", "from"), rows)


def _flag(value) -> str:
    return "yes" if value else "no"


def jobs(sample: Sample) -> Text:
    """Return time and memory of every job before this report."""
    rows = [
        (name, f"{r['seconds']:.1f}", thousands(r["peak_memory_mb"]), r["threads"], r["device"])
        for name, r in sample.records.items()
    ]
    total = sum(r["seconds"] for r in sample.records.values())
    return table(
        ("job", "time (s)", "peak memory (MB)", "threads", "device"),
        [*rows, ("all", f"{total:.1f}", "", "", "")],
        (1, 2, 3),
    )


def scores(sample: Sample) -> Text:
    """Return shares within the thresholds, one column per region, where truth is known; the CSV holds the rest."""
    values = {(source, region, metric): value for source, region, metric, value in sample.scores}
    metrics = [m for m in dict.fromkeys(m for _, _, m in values) if m.startswith("within_")]
    metrics += [f"identifiable_{m}" for m in metrics]
    regions = list(dict.fromkeys(r for _, r, m in values if m in metrics))
    lines = []
    for metric in metrics:
        for source in dict.fromkeys(s for s, _, m in values if m == metric):
            shares = (values.get((source, region, metric), float("nan")) for region in regions)
            lines.append((_metric_words(metric), source.replace("_", " "), *map(percent, shares)))
    return table(("share of positions", "source", *regions), lines, tuple(range(2, 2 + len(regions))))


def _metric_words(metric: str) -> str:
    """Return "within 5°, identifiable" for "identifiable_within_5_deg"."""
    words = metric.removeprefix("identifiable_").replace("within_", "within ").replace("_deg", "°")
    return f"{words}, identifiable" if metric.startswith("identifiable_") else words


def grains(sample: Sample) -> Text:
    """Return one row per source and phase: number and size of grains, spread, noise, twins, texture."""
    rows = []
    for source, found in sample.grains.items():
        for k, name in enumerate(found.phase_name):
            mine = found.grain_phase == k
            size, weight = found.grain_diameter_nm[mine], found.grain_size_px[mine]
            mean = float((size * weight).sum() / weight.sum()) if mine.any() else float("nan")
            share, chance = _class_share(found, k, "Σ3")
            index, expected = found.texture_index[k], found.texture_index_random[k]
            rows.append(
                (
                    source,
                    name,
                    int(mine.sum()),
                    percent(float(np.isin(found.grain, np.flatnonzero(mine)).mean())),
                    number(mean, 3),
                    number(_middle(found.grain_spread_deg[mine]), 2),
                    number(_middle(found.grain_kam_floor_deg[mine]), 2),
                    f"{percent(share)} ({percent(chance)})",
                    number(float(index), 3),
                    f"{number(float(expected), 3)} ± {number(float(found.texture_index_random_sigma[k]), 1)}",
                )
            )
    header = (
        "source", "phase", "grains", "of positions", "mean diameter, by area (nm)", "spread (°)", "KAM floor (°)",
        "Σ3 share of length (at random)", "texture index", "of as many random grains",
    )  # fmt: skip
    return table(header, rows, tuple(range(2, len(header))))


def clusters(sample: Sample) -> Text:
    """Return one row per cluster of components: phase, orientation and how far to trust them, or why there are none."""
    found, nmf = sample.clusters, sample.nmf
    if found is None:
        first = "" if sample.crystals else "name crystal structures under the sample's <code>phases</code> and "
        text = "to the sample's <code>stages</code> to index their mean recorded patterns."
        return Text(f"<p>The clusters are not named: {first}add <code>clusters</code> {text}</p>")
    rows = []
    for c, name in enumerate(cluster_names(found)):
        several = found.phase_reliability is not None
        members = ", ".join(map(str, np.flatnonzero(np.asarray(nmf.component_cluster) == c)))
        share = percent(float(found.size_px[c]) / np.asarray(nmf.cluster).size)
        if not name:
            rows.append((c, members, share, "not indexed", "–", "–", number(float(found.correlation[c]), 2), "–", "–"))
            continue
        turns = " (or half a turn about the beam)" if found.ambiguous[c] else ""
        axis = f"{axis_text(found.zone_axis[c])}, {found.zone_axis_off_deg[c]:.1f}° off"
        w, x, y, z = found.orientation[c]
        sure = f"{found.phase_reliability[c]:.1f}" if several else "–"
        values = f"{found.correlation[c]:.2f}", f"{found.reliability[c]:.1f}", sure
        rows.append((c, members, share, name, axis + turns, f"{w:.3f}, {x:.3f}, {y:.3f}, {z:.3f}", *values))
    header = (
        "cluster", "components", "of positions", "phase", "beam along", "orientation (w, x, y, z)", "correlation",
        "reliability", "reliability of the phase",
    )  # fmt: skip
    return table(header, rows, (6, 7, 8))


def species(sample: Sample) -> Text:
    """Return one row per species of the template masks: what is claimed, and against which null."""
    found, rows = sample.template_mask, []
    for k, name in enumerate(found.species):
        control = "–"
        if np.isfinite(found.control_contrast[k]):
            control = f"{found.control_contrast[k]:.1f} ± {found.control_contrast_sigma[k]:.1f}"
        rows.append(
            (
                name,
                found.statement[k],
                f"{found.correlation[k]:.2f}",
                f"{found.correlation_in_sample[k]:.2f} ({found.correlation_by_noise[k]:.2f})",
                f"{found.decoy_correlation[k]:.2f}, {found.wrong_correlation[k]:.2f}",
                f"{found.contrast[k]:.1f} ± {found.contrast_sigma[k]:.1f}",
                control,
                f"{found.contrast_to_noise[k]:.1f}",
                f"{found.decoy_contrast_to_noise[k]:.1f}, {found.wrong_contrast_to_noise[k]:.1f}",
                f"{np.nanmax(np.abs(found.classical_contrast_to_noise[:, k])):.1f}",
                f"{found.pull[k]:.2f}",
                *_joined(found, k),
            )
        )
    head = ("species", "statement", "image and template", "in-sample (by noise alone)", "at empty, wrong sites")
    head += ("contrast (counts)", "in the control", "contrast to noise", "its like at empty, wrong sites")
    head += ("best classical", "pull")
    head += (
        () if found.joined_image is None else ("joined: contrast to noise", "at empty sites", "in the control", "pull")
    )
    return table(head, rows, tuple(range(2, len(head))))


def _joined(found, k: int) -> tuple:
    """Return what a row says of the image joined with those of the slopes."""
    if found.joined_image is None:
        return ()
    control = found.joined_control_contrast[k]
    share = f"{control / found.joined_contrast[k]:.0%} of the contrast" if np.isfinite(control) else "–"
    ratio, empty = found.joined_contrast_to_noise[k], found.joined_decoy_contrast_to_noise[k]
    return f"{ratio:.1f}", f"{empty:.1f}", share, f"{found.joined_pull[k]:.2f}"


def _class_share(found, phase: int, name: str) -> tuple[float, float]:
    """Share of a class in the boundaries of a phase, and at random; NaN where the phase has no such class."""
    for k, (one, of) in enumerate(zip(found.class_name, found.class_phase, strict=True)):
        if one == name and of == phase:
            return float(found.class_share[k]), float(found.class_random_share[k])
    return float("nan"), float("nan")


def _middle(values) -> float:
    values = np.asarray(values)[np.isfinite(values)]
    return float(np.median(values)) if values.size else float("nan")


def provenance(sample: Sample) -> Text:
    """Return raw files with their hashes, the code's fingerprints and the versions."""
    rows = []
    for entry in _raw_files(sample):
        size = thousands(entry["bytes"])
        rows.append(("raw file", Text(f"<code>{entry['path']}</code> ({size} bytes)"), _code(entry["sha256"])))
    commits = {(r["commit"], r["dirty"]) for r in sample.records.values()}
    for commit, dirty in sorted(commits, key=str):
        state = "edited after this commit" if dirty else "as committed"
        rows.append(("code", "unknown commit" if commit is None else state, _code(commit or "–")))
    rows += [(f"job {name}", "fingerprint of its code", _code(r["code"])) for name, r in sample.records.items()]
    versions = {k: v for r in sample.records.values() for k, v in r["versions"].items()}
    rows.append(("versions", ", ".join(f"{k} {v}" for k, v in sorted(versions.items())), ""))
    return table(("what", "which", "hash"), rows)


def _code(text: str) -> Text:
    return Text(f'<code class="hash">{text}</code>')


def _raw_files(sample: Sample) -> list[dict]:
    inputs = sample.records.get("scan", {}).get("inputs", [])
    return [e for e in inputs if Path(e["path"]).parent.name != "provenance" and not e["path"].endswith(".cif")]
