"""Record every file of the results with its sha256: the end of the chain."""

from fourdstem.stage import stage

with stage(snakemake) as job:
    from fourdstem import provenance

    provenance.write_record(job.output.record, provenance.collect("results", job.input.sidecars))
