"""Make mistakes in configurations and damage files on purpose: is any of them taken without a word?"""

from fourdstem.stage import stage

with stage(snakemake) as job:
    from fourdstem import study
    from fourdstem.faults import survey

    params = job.params
    rows = survey.study(params.configurations, params.damages, params.seed, job.say)
    study.write_table(job.output.table, rows)
