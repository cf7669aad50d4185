"""Gather the evaluations of films at several doses: how each way of averaging does, as a table and figures."""

from fourdstem.stage import stage

with stage(snakemake) as job:
    from pathlib import Path

    from fourdstem import study
    from fourdstem.figures import study_averaging as figures

    rows = study.gather_doses(job.input.tables, job.params.doses)
    study.write_table(job.output.table, rows)
    figures.draw(rows, Path(job.output.table).parent)
