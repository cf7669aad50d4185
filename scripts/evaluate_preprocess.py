"""Evaluate denoising, centres and ellipses on simulated patterns whose truth is known, as a table and figures.

Where FOURDSTEM_TEST_DATA names the folder of measured data, some of its patterns are denoised and drawn beside the log.
"""

from fourdstem.stage import stage

with stage(snakemake) as job:
    import os
    from pathlib import Path

    from fourdstem import study
    from fourdstem.figures import evaluate_preprocess as figures
    from fourdstem.formats.opening import open_raw
    from fourdstem.methods import evaluate_preprocess as method
    from fourdstem.methods.evaluate_preprocess import measured

    pictures, data = {}, os.environ.get("FOURDSTEM_TEST_DATA")
    if data:
        with open_raw(Path(data) / "cryo_counts" / "virus_crop24x24_det256_raw.h5") as raw:
            pictures["cryo counts"] = measured.spread_over(raw.data)
        pictures["Al-Cu-Li"] = measured.halves(Path(data) / "sped_alculi" / "sped_alculi.npz")
    params = job.settings(method.Params)
    result = method.compute(params, job.input.weights, job.input.many_beam, job.device, job.say, pictures)
    rows = method.formatted(result.table)
    study.write_table(job.output.table, [method.COLUMNS, *rows])
    figures.draw(rows, Path(job.output.table).parent)
    if result.examples:
        figures.draw_measured(result.examples, Path(job.log[0]).parent)
