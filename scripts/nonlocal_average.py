"""Average each pattern with the patterns most like it."""

from fourdstem.stage import stage

with stage(snakemake) as job:
    from pathlib import Path

    from fourdstem import io
    from fourdstem.methods import nonlocal_average as method

    params = job.settings(method.Params)
    options = {"memory_mb": job.memory_mb, "threads": job.threads}
    with (
        io.open_corrected(job.input.scan, job.input.preprocess, **options) as cube,
        io.create(job.output.result, job.process, cube.acquisition) as file,
    ):
        made_of = (*cube.scan_shape, method.members(params, cube.scan_shape))
        axes = ("scan_y", "scan_x", "member")
        out = method.Output(
            file.stream(
                "patterns", cube.shape, "float32", unit="counts", long_name="averaged patterns", frame="corrected"
            ),
            file.stream("member", made_of, "int32", axes, long_name="scan_y index × scan_x + scan_x index, or -1"),
            file.stream("weight", made_of, "float32", axes, long_name="weight of each member"),
        )
        radius = float(io.read(job.input.preprocess, "beam_radius_px"))
        result = method.compute(cube, params, out, radius, Path(job.output.result).parent, job.device)
        file.write(result)
        for doubt in method.doubts(result):
            job.say(f"warning: {doubt}")
