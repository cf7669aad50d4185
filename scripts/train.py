"""Train the networks of the preprocessing on simulated patterns, and test them on other crystal structures."""

from fourdstem.stage import stage

with stage(snakemake) as job:
    from pathlib import Path

    from fourdstem.figures import training as figures
    from fourdstem.methods import training as method
    from fourdstem.methods.training.writing import write

    folder = Path(job.output.card).parent
    checkpoints = folder / "checkpoints"
    checkpoints.mkdir(parents=True, exist_ok=True)
    params = job.settings(method.Params)
    result = method.compute(params, job.device, log=job.say, checkpoints=str(checkpoints), workers=job.threads - 1)
    write(result, folder, job.params.code)
    figures.draw(result.curves, folder)
    if result.failures:
        raise RuntimeError(f"not every network could be trained: {result.failures}")
    for file in checkpoints.iterdir():
        file.unlink()
