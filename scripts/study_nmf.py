"""Choose ranks, labels and overlap of scans whose components are known, beside other ways, as a table and figures.

The scans are simulated, averaged and factorised here, one after the other.
"""

from fourdstem.stage import stage

with stage(snakemake) as job:
    from dataclasses import replace
    from pathlib import Path
    from tempfile import TemporaryDirectory

    from fourdstem import study
    from fourdstem.figures import study_nmf as figures
    from fourdstem.methods import evaluation, nmf, nonlocal_average
    from fourdstem.methods.nmf import choices, prepare
    from fourdstem.methods.simulate import mixture
    from fourdstem.schema import build

    params = build(nmf.Params, dict(job.params.nmf))
    averaging = nonlocal_average.Params()
    ranks, agreements = {}, {}
    for kind in mixture.KINDS:
        for seed in job.params.seeds:
            spec = mixture.kind(kind, seed)
            mixed = mixture.mix(spec)
            recorded = mixture.cube_of(mixed, job.threads)
            with TemporaryDirectory() as folder:
                most = nonlocal_average.members(averaging, recorded.scan_shape)
                out = nonlocal_average.Output(**evaluation.room_for_average(folder, recorded.shape, most))
                nonlocal_average.compute(recorded, averaging, out, spec.radius_px, folder)
                averaged = evaluation.stored(recorded, out.patterns)
                mask = prepare.features_of(averaged, params, spec.radius_px).mask
                truth = mixed.fraction, mixed.pattern[:, mask]

                def compared(result, weight, label, mask=mask, truth=truth):
                    both = choices.overlapping(weight, job.params.ratio)
                    return evaluation.agreement(label, both, result.component[:, mask], *truth, job.params.ratio)

                result = nmf.compute(averaged, recorded, params, spec.radius_px, Path(folder), job.device)
                patterns = averaged.data[:][:, :, mask].reshape(-1, int(mask.sum()))
                found = choices.ranks(result) | evaluation.usual_ranks(patterns, int(result.rank[-1]))
                for way, rank in found.items():
                    ranks.setdefault((kind, way), []).append((rank, spec.components))
                told = compared(result, result.weight, result.label)
                agreements.setdefault((kind, "stage"), []).append(told)
                job.say(f"{kind}, seed {seed}: {spec.components} components, {found}; ARI {told.ari:.3f}")
                for source, cube, weighting in (
                    ("corrected", recorded, "counts"),
                    ("averaged", averaged, "counts"),
                    ("averaged", averaged, "sqrt"),
                ):
                    fixed = replace(params, rank=spec.components, starts=1, weighting=weighting, background="none")
                    one = nmf.compute(cube, recorded, fixed, spec.radius_px, Path(folder), job.device)
                    for scaling, (weight, label) in choices.scalings(one).items():
                        way = f"{source}, {weighting}, {scaling}"
                        agreements.setdefault((kind, way), []).append(compared(one, weight, label))
    rows = evaluation.rank_rows(ranks, agreements)
    study.write_table(job.output.table, rows)
    figures.draw(rows, ranks, Path(job.output.table).parent)
