"""Average the phonons of a specimen, and write down where its columns are."""

from fourdstem.stage import stage

with stage(snakemake) as job:
    from fourdstem import specimens, study

    specimens.save(job.output.patterns, specimens.averaged(job.input.parts))
    study.write_table(job.output.truth, specimens.truth(job.wildcards.specimen))
