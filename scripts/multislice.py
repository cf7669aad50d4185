"""Simulate the scan of one cell of a specimen with one configuration of phonons."""

from fourdstem.stage import stage

with stage(snakemake) as job:
    from fourdstem import multislice, specimens

    name, seed = job.wildcards.specimen, int(job.wildcards.phonons)
    patterns = multislice.simulate(name, dict(job.params.optics), specimens.thicknesses(name), seed)
    specimens.save(job.output.patterns, patterns)
