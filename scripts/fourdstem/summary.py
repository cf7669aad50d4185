"""All samples side by side, from their ``metrics.json``. Standard library only."""

import csv
from html import escape
from io import StringIO

from fourdstem.page import PAGE

# keys, title, format; a column stands only where some sample has a value. Two keys: before and after averaging.
COLUMNS = (
    (("counts_per_pattern",), "counts per pattern", "{:.0f}"),
    (("centre_sigma_px",), "centre σ (px)", "{:.3f}"),
    (("ellipse_ratio",), "ellipse a/b", "{:.4f}"),
    (("effective_number",), "patterns averaged", "{:.1f}"),
    (("corrected_indexed_share", "averaged_indexed_share"), "indexed", "{:.1%}"),
    (("corrected_reliability", "averaged_reliability"), "reliability", "{:.1f}"),
    (("corrected_within_5_deg", "averaged_within_5_deg"), "within 5° of truth", "{:.1%}"),
)


def csv_text(samples: list[dict]) -> str:
    """Return one row per sample with every value that any of them has; NaN where it has none."""
    keys = list(dict.fromkeys(key for sample in samples for key in sample["values"]))
    verdicts = list(dict.fromkeys(key for sample in samples for key in sample["verdicts"]))
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["sample", "scan_y", "scan_x", "detector_y", "detector_x", *keys, *(f"{v}_pass" for v in verdicts), "warnings"]
    )
    for sample in samples:
        values = ["NaN" if sample["values"].get(key) is None else sample["values"][key] for key in keys]
        passed = [{True: 1, False: 0}.get(sample["verdicts"].get(key), "NaN") for key in verdicts]
        shape = [*sample["scan_shape"], *sample["detector_shape"]]
        writer.writerow([sample["sample"], *shape, *values, *passed, sample["warnings"]])
    return text.getvalue()


def html(samples: list[dict]) -> str:
    """Return a page with one row per sample, its map and a link to its report."""
    columns = [c for c in COLUMNS if any(s["values"].get(k) is not None for s in samples for k in c[0])]
    head = "".join(f'<th class="number">{title}</th>' for _, title, _ in columns)
    head = f'<tr><th>map</th><th>sample</th><th>scan</th>{head}<th>declined</th><th class="number">warnings</th></tr>'
    rows = "\n".join(_row(sample, columns) for sample in samples)
    body = (
        f'<h1>All samples</h1><p class="note">{len(samples)} sample{"s" if len(samples) != 1 else ""}. A dash means '
        "that the stage did not run or could not measure the value. Maps: crystal direction along the beam (grey: not "
        "indexed), or bright field where indexing did not run. Arrows: before and after averaging.</p>"
        f'<div class="scroll"><table><thead>{head}</thead><tbody>{rows}</tbody></table></div>'
    )
    page = PAGE.replace("{{title}}", "4D-STEM summary").replace("{{body}}", body)
    links = "\n".join(f'<a href="{escape(s["sample"])}/report.html">{escape(s["sample"])}</a>' for s in samples)
    return page.replace("{{links}}", links)


def _row(sample: dict, columns) -> str:
    name = escape(sample["sample"])
    picture = (
        f'<img class="thumbnail" alt="{name}" src="data:image/png;base64,{sample["thumbnail"]}">'
        if sample["thumbnail"]
        else "–"
    )
    cells = "".join(
        f'<td class="number tight">{_numbers(sample["values"], keys, form)}</td>' for keys, _, form in columns
    )
    declined = ", ".join(escape(k) for k, passed in sample["verdicts"].items() if not passed) or "none"
    shape = " × ".join(map(str, sample["scan_shape"]))
    return (
        f'<tr><td>{picture}</td><td><a href="{name}/report.html">{name}</a></td><td class="tight">{shape}</td>{cells}'
        f'<td>{declined}</td><td class="number">{sample["warnings"]}</td></tr>'
    )


def _numbers(values: dict, keys, form: str) -> str:
    """Return one number, or "before → after"."""
    found = [values.get(key) for key in keys]
    return "–" if set(found) == {None} else " → ".join("–" if v is None else form.format(v) for v in found)
