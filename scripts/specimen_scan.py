"""Draw the counts of a scan over several cells of a simulated specimen, as a raw file."""

from fourdstem.stage import stage

with stage(snakemake) as job:
    from fourdstem import specimens

    asked = job.wildcards
    cell = specimens.at_thickness(job.input.patterns, asked.specimen, float(asked.angstrom))
    counts = specimens.recorded(cell, job.params.tiles, float(asked.electrons), job.params.seed)
    specimens.save(job.output.counts, counts)
