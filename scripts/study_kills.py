"""Kill runs of the workflow at random moments, resume each, and compare the results with a run left alone."""

from fourdstem.stage import stage

with stage(snakemake) as job:
    from tempfile import TemporaryDirectory

    from fourdstem import kills, study

    with TemporaryDirectory() as folder:
        rows = kills.study(folder, job.input.config, job.params.each, job.params.seed, job.say)
    study.write_table(job.output.table, rows)
