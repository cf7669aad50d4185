"""The tables of a report."""

from pathlib import Path

from fourdstem.figures.maps import thousands
from fourdstem.report.sample import Sample
from fourdstem.report.text import Text, number, percent, table
from fourdstem.schema import unit_of

_WHAT = {
    "centre": "beam centre", "descan": "descan surface", "ellipse": "ellipse", "camera": "camera length",
    "gain": "detector gain", "pixels": "detector pixels",
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
    rows = [(key, number(value, 6), unit_of(key), origin) for key, (value, origin) in sorted(sample.origins.items())]
    return table(("value", "in force", "unit", "from"), rows)


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
    """Return shares within the thresholds by region and source, where truth is known."""
    rows = sample.scores
    wanted = [m for m in dict.fromkeys(metric for _, _, metric, _ in rows) if m.startswith(("indexed", "within_"))]
    values = {(s, r, m): v for s, r, m, v in rows}
    pairs = dict.fromkeys((region, source) for source, region, metric, _ in rows if metric in wanted)
    regions = list(dict.fromkeys(region for region, _ in pairs))
    lines = [
        (region, source.replace("_", " "), *(percent(values.get((source, region, m), float("nan"))) for m in wanted))
        for region, source in sorted(pairs, key=lambda pair: regions.index(pair[0]))
    ]
    titles = [m.replace("within_", "within ").replace("_deg", "°") for m in wanted]
    return table(("region", "source", *titles), lines, tuple(range(2, 2 + len(wanted))))


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
