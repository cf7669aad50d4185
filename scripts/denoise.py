"""Take the noise off each pattern by itself."""

from fourdstem.stage import stage

with stage(snakemake) as job:
    from fourdstem import io
    from fourdstem.methods import denoise as method

    params = job.settings(method.Params)
    options = {"memory_mb": job.memory_mb, "threads": job.threads}
    with (
        io.open_scan(job.input.scan, **options) as cube,
        io.open_corrected(job.input.scan, job.input.preprocess, **options) as corrected,
        io.create(job.output.result, job.process, cube.acquisition) as file,
    ):
        fit = corrected.correction
        known = method.electrons_of(cube, fit.bad, fit.counts_per_electron, fit.offset_counts, fit.readout_noise_counts)
        out = file.stream(
            "patterns", cube.shape, "float32", unit="counts", long_name="denoised patterns", frame="recorded"
        )
        file.write(method.compute(cube, params, out, known, job.input.weights, job.device))
