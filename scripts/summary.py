"""Put all samples side by side."""

from fourdstem.stage import stage

with stage(snakemake) as job:
    import json
    from pathlib import Path

    from fourdstem import summary
    from fourdstem.io import write_text

    samples = [json.loads(Path(path).read_text(encoding="utf-8")) for path in job.input.metrics]
    write_text(job.output.table, summary.csv_text(samples))
    write_text(job.output.html, summary.html(samples))
