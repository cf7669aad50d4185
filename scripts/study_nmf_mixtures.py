"""Choose ranks, labels and overlap of mixtures whose components are known, beside other ways, as a table.

The scans are simulated, averaged and factorised here, one after the other.
"""

from fourdstem.stage import stage

with stage(snakemake) as job:
    from dataclasses import replace
    from pathlib import Path
    from tempfile import TemporaryDirectory

    from fourdstem import study
    from fourdstem.methods import evaluation, nmf, nonlocal_average
    from fourdstem.methods.nmf import choices, prepare
    from fourdstem.methods.simulate import mixture
    from fourdstem.schema import build

    params = build(nmf.Params, dict(job.params.nmf))
    averaging, ratio = nonlocal_average.Params(), job.params.ratio
    table = []
    for kind in mixture.KINDS:
        spec = mixture.kind(kind, job.params.film["seed"])
        mixed = mixture.mix(spec)
        recorded = mixture.cube_of(mixed, job.threads)
        with TemporaryDirectory() as folder:
            most = nonlocal_average.members(averaging, recorded.scan_shape)
            out = nonlocal_average.Output(**evaluation.room_for_average(folder, recorded.shape, most))
            made = nonlocal_average.compute(recorded, averaging, out, spec.radius_px, folder)
            averaged = evaluation.stored(recorded, out.patterns)
            mask = prepare.features_of(averaged, params, spec.radius_px).mask
            truth = mixed.fraction, mixed.pattern[:, mask]
            options = {"beam_radius_px": spec.radius_px, "folder": Path(folder), "device": job.device}
            behind = made.effective_number

            result = nmf.compute(averaged, recorded, params, effective_number=behind, **options)
            patterns = averaged.data[:][:, :, mask].reshape(-1, int(mask.sum()))
            ranks = choices.ranks(result) | evaluation.usual_ranks(patterns, int(result.rank[-1]))
            both = choices.overlapping(result.weight, ratio)
            found = {"stage": evaluation.agreement(result.label, both, result.component[:, mask], *truth, ratio)}
            known = evaluation.weights_of(patterns, truth[1]).reshape(*recorded.scan_shape, -1)
            both = choices.overlapping(known, ratio)
            found["true patterns"] = evaluation.agreement(known.argmax(axis=-1), both, truth[1], *truth, ratio)
            for source, cube, weighting in (
                ("corrected", recorded, "counts"),
                ("averaged", averaged, "counts"),
                ("averaged", averaged, "sqrt"),
            ):
                fixed = replace(params, rank=spec.components, starts=1, weighting=weighting, background="none")
                one = nmf.compute(cube, recorded, fixed, **options)
                for scaling, (weight, label) in choices.scalings(one).items():
                    both = choices.overlapping(weight, ratio)
                    told = evaluation.agreement(label, both, one.component[:, mask], *truth, ratio)
                    found[f"{source}, {weighting}, {scaling}"] = told
        job.say(f"{kind}: {spec.components} components, {ranks}; ARI {found['stage'].ari:.3f}")
        table += evaluation.scan_rows(kind, spec.components, ranks, found)
    study.write_table(job.output.table, table)
