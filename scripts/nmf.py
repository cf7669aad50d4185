"""Factorise patterns into components, choose how many, and map them."""

from fourdstem.stage import stage

with stage(snakemake) as job:
    from pathlib import Path

    from fourdstem import io
    from fourdstem.methods import nmf as method

    params = job.settings(method.Params)
    radius = float(io.read(job.input.preprocess, "beam_radius_px"))
    options = {"memory_mb": job.memory_mb, "threads": job.threads}
    with (
        io.open_patterns(params.source, job.input, **options) as cube,
        io.open_corrected(job.input.scan, job.input.preprocess, **options) as recorded,
        io.create(job.output.result, job.process, cube.acquisition) as file,
    ):
        folder = Path(job.output.result).parent
        averaged = params.source == "averaged"
        behind = io.read(job.input.nonlocal_average, "effective_number") if averaged else None
        result = method.compute(cube, recorded, params, radius, folder, job.device, job.say, behind)
        file.write(result)
    for doubt in method.doubts(result):
        job.say(f"warning: {doubt}")
