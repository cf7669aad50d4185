"""Average each pattern with the patterns most like it."""

from fourdstem.stage import stage

with stage(snakemake) as job:
    from fourdstem import io
    from fourdstem.methods import nonlocal_average as method

    params = job.settings(method.Params)
    options = {"memory_mb": job.memory_mb, "threads": job.threads}
    with (
        io.open_corrected(job.input.scan, job.input.preprocess, **options) as cube,
        io.create(job.output.result, job.process, cube.acquisition) as file,
    ):
        names = {"unit": "counts", "long_name": "averaged patterns", "frame": "corrected"}
        out = file.stream("patterns", cube.shape, "float32", **names)
        file.write(method.compute(cube, params, out))
