"""Make virtual bright-field, dark-field and centre-of-mass images."""

from fourdstem.stage import stage

with stage(snakemake) as job:
    from fourdstem import io
    from fourdstem.methods import virtual_image as method

    params = job.settings(method.Params)
    radius = io.read(job.input.preprocess, "beam_radius_px")
    options = {"memory_mb": job.memory_mb, "threads": job.threads}
    with (
        io.open_corrected(job.input.scan, job.input.preprocess, **options) as cube,
        io.create(job.output.result, job.process, cube.acquisition) as file,
    ):
        file.write(method.compute(cube, params, radius))
