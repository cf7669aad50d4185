"""Draw the figures and write the report of a sample."""

from fourdstem.stage import stage

with stage(snakemake) as job:
    import json
    from pathlib import Path

    from fourdstem import notebook, provenance, report
    from fourdstem.io import write_text

    phases = dict(zip(job.params.phases, map(str, job.input.cif), strict=True))
    changed = json.loads(json.dumps(job.params.changed))
    folder = str(Path(job.output.html).parent)
    values = {"results": folder, "figures": str(job.output.figures), "phases": phases, "changed": changed}
    sample = report.read(**values)
    executed = Path(job.log[0]).with_suffix(".ipynb")  # a failed notebook stays there with its traceback
    notebook.execute(job.input.notebook, executed, values, report.sections(sample))
    notebook.store(executed, job.output.notebook)
    notebook.to_html(job.output.notebook, job.output.html, f"{job.sample}: 4D-STEM report")
    write_text(job.output.metrics, provenance.canonical(report.metrics(sample)))
