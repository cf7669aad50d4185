"""Patterns for other programs, on request: `snakemake exports/{sample}/{source}.blo`, .hspy or .emd."""


rule export:
    input:
        scan=rules.scan.output.result,
        preprocess=rules.preprocess.output.result,
        denoise=made("denoised", source_read),
        nonlocal_average=made("averaged", source_read),
        sidecars=[rules.scan.output.sidecar, rules.preprocess.output.sidecar],
        denoised_sidecar=made("denoised", source_read, sidecar=True),
        averaged_sidecar=made("averaged", source_read, sidecar=True),
    output:
        patterns="exports/{sample}/{source}.{format}",
        sidecar="exports/{sample}/provenance/{source}_{format}.json",
    log:
        "exports/{sample}/logs/{source}_{format}.log",
    wildcard_constraints:
        format="blo|hspy|emd",
    conda:
        "../../envs/export.yaml"
    threads: 16
    resources:
        mem_mb=2000,
    params:
        code=code("export"),
    message:
        "{wildcards.sample}: {wildcards.source} patterns as .{wildcards.format}"
    script:
        "../../scripts/export.py"
