"""Put the evaluations of several films into one table: mean, lowest and highest of every share."""

from fourdstem.stage import stage

with stage(snakemake) as job:
    from fourdstem import study

    study.write_table(job.output.table, study.gather(job.input.tables, job.params.samples))
