"""Draw the counts of a scan over several cells of a simulated specimen, as a raw file."""

from fourdstem.stage import stage

with stage(snakemake) as job:
    import json

    from fourdstem import specimens

    asked = job.wildcards
    cell = specimens.at_thickness(job.input.patterns, asked.specimen, float(asked.angstrom))
    tiles = specimens.tiles(asked.specimen)
    specimens.save(job.output.counts, specimens.recorded(cell, tiles, float(asked.electrons), job.params.seed))
    told = json.dumps(specimens.acquisition(asked.specimen, dict(job.params.optics)))
    job.say(f"for the sample block of a configuration: acquisition: {told}")
