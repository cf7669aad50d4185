"""Put the comparisons of mixtures, one table per seed, into one table and figures."""

from fourdstem.stage import stage

with stage(snakemake) as job:
    from pathlib import Path

    from fourdstem import study
    from fourdstem.figures import study_nmf as figures

    rows, errors = study.gather_components(job.input.tables)
    study.write_table(job.output.table, rows)
    figures.draw(rows, errors, Path(job.output.table).parent)
