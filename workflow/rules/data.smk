"""From a raw file (or a simulated one) to counts with known centres, ellipse and bad pixels."""


rule simulate:
    input:
        cif=cif_files,
    output:
        result="results/{sample}/simulated.h5",
        sidecar="results/{sample}/provenance/simulate.json",
    log:
        "results/{sample}/logs/simulate.log",
    benchmark:
        "results/{sample}/logs/simulate.benchmark.tsv"
    conda:
        "../../envs/simulate.yaml"
    threads: 16
    resources:
        mem_mb=2000,
    params:
        code=code("simulate"),
        settings=settings_of("simulate"),
        phases=phase_names,
    message:
        "{wildcards.sample}: simulate a scan with known truth"
    script:
        "../../scripts/simulate.py"


rule scan:
    input:
        raw=raw_file,
        companions=companion_files,
        cif=cif_files,
    output:
        result="results/{sample}/scan.h5",
        sidecar="results/{sample}/provenance/scan.json",
    log:
        "results/{sample}/logs/scan.log",
    benchmark:
        "results/{sample}/logs/scan.benchmark.tsv"
    conda:
        "../../envs/scan.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        # A resource, because a parameter would make a stage that is added later rerun the whole chain.
        needed=needed_of,
    params:
        code=code("scan"),
        settings=settings_of("scan"),
        acquisition=acquisition_of,
        dataset=dataset_of,
        phases=phase_names,
    message:
        "{wildcards.sample}: read {input.raw}"
    script:
        "../../scripts/scan.py"


rule preprocess:
    input:
        scan=rules.scan.output.result,
        sidecars=rules.scan.output.sidecar,
        cif=cif_files,
    output:
        result="results/{sample}/preprocess.h5",
        sidecar="results/{sample}/provenance/preprocess.json",
    log:
        "results/{sample}/logs/preprocess.log",
    benchmark:
        "results/{sample}/logs/preprocess.benchmark.tsv"
    conda:
        "../../envs/preprocess.yaml"
    threads: 16
    resources:
        mem_mb=2000,
    params:
        code=code("preprocess"),
        settings=settings_of("preprocess"),
        phases=phase_names,
    message:
        "{wildcards.sample}: bad pixels, centres, ellipse"
    script:
        "../../scripts/preprocess.py"
