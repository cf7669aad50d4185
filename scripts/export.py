"""Write the patterns of a source for another program, streamed."""

from fourdstem.stage import stage

with stage(snakemake) as job:
    from fourdstem import io
    from fourdstem.formats.export import write_patterns

    options = {"memory_mb": job.memory_mb, "threads": job.threads}
    with io.open_patterns(job.wildcards.source, job.input, **options) as cube:
        write_patterns(job.output.patterns, job.wildcards.format, cube, job.sample)
