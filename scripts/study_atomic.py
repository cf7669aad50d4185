"""Put the tables of simulated specimens, one per thickness, into one table and figures."""

from fourdstem.stage import stage

with stage(snakemake) as job:
    from pathlib import Path

    from fourdstem import study
    from fourdstem.figures import study_atomic as figures

    rows, columns = study.joined(job.input.tables), study.joined(job.input.columns)
    study.write_table(job.output.table, rows)
    study.write_table(job.output.columns, columns)
    figures.draw(rows[1:], columns[1:], Path(job.output.table).parent)
