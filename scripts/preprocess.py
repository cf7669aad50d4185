"""Find bad pixels, the beam's centre, the ellipse and their uncertainty."""

from fourdstem.stage import stage

with stage(snakemake) as job:
    from fourdstem import crystal, io
    from fourdstem.methods import preprocess as method

    params = job.settings(method.Params)
    crystals = crystal.read_all(job.input.cif, job.params.phases)
    with (
        io.open_scan(job.input.scan, memory_mb=job.memory_mb, threads=job.threads) as cube,
        io.create(job.output.result, job.process, cube.acquisition) as file,
    ):
        file.write(method.compute(cube, params, crystals))
