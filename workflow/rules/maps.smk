"""From counts to maps."""


rule virtual_image:
    input:
        scan=rules.scan.output.result,
        preprocess=rules.preprocess.output.result,
        sidecars=[rules.scan.output.sidecar, rules.preprocess.output.sidecar],
    output:
        result="results/{sample}/virtual_image.h5",
        sidecar="results/{sample}/provenance/virtual_image.json",
    log:
        "results/{sample}/logs/virtual_image.log",
    benchmark:
        "results/{sample}/logs/virtual_image.benchmark.tsv"
    conda:
        "../../envs/virtual_image.yaml"
    threads: 16
    resources:
        mem_mb=2000,
    params:
        code=code("virtual_image"),
        settings=settings_of("virtual_image"),
    message:
        "{wildcards.sample}: virtual images"
    script:
        "../../scripts/virtual_image.py"


rule denoise:
    input:
        scan=rules.scan.output.result,
        preprocess=rules.preprocess.output.result,
        sidecars=[rules.scan.output.sidecar, rules.preprocess.output.sidecar],
        weights=f"{TRAINED}/denoise.safetensors",
    output:
        result="results/{sample}/denoised.h5",
        sidecar="results/{sample}/provenance/denoise.json",
    log:
        "results/{sample}/logs/denoise.log",
    benchmark:
        "results/{sample}/logs/denoise.benchmark.tsv"
    conda:
        "../../envs/denoise.yaml"
    threads: 16
    resources:
        mem_mb=3000,
        device="auto",
    params:
        code=code("denoise"),
        settings=settings_of("denoise"),
    message:
        "{wildcards.sample}: take the noise off single patterns"
    script:
        "../../scripts/denoise.py"


rule nonlocal_average:
    input:
        scan=rules.scan.output.result,
        preprocess=rules.preprocess.output.result,
        sidecars=[rules.scan.output.sidecar, rules.preprocess.output.sidecar],
    output:
        result="results/{sample}/nonlocal_average.h5",
        sidecar="results/{sample}/provenance/nonlocal_average.json",
    log:
        "results/{sample}/logs/nonlocal_average.log",
    benchmark:
        "results/{sample}/logs/nonlocal_average.benchmark.tsv"
    conda:
        "../../envs/nonlocal_average.yaml"
    threads: 16
    resources:
        mem_mb=2000,
        device="auto",
    params:
        code=code("nonlocal_average"),
        settings=settings_of("nonlocal_average"),
    message:
        "{wildcards.sample}: average similar patterns"
    script:
        "../../scripts/nonlocal_average.py"


rule nmf:
    input:
        scan=rules.scan.output.result,
        preprocess=rules.preprocess.output.result,
        denoise=made("denoised", source_factorised),
        nonlocal_average=made("averaged", source_factorised),
        sidecars=[rules.scan.output.sidecar, rules.preprocess.output.sidecar],
        denoised_sidecar=made("denoised", source_factorised, sidecar=True),
        averaged_sidecar=made("averaged", source_factorised, sidecar=True),
    output:
        result="results/{sample}/nmf.h5",
        sidecar="results/{sample}/provenance/nmf.json",
    log:
        "results/{sample}/logs/nmf.log",
    benchmark:
        "results/{sample}/logs/nmf.benchmark.tsv"
    conda:
        "../../envs/nmf.yaml"
    threads: 16
    resources:
        mem_mb=2000,
        device="auto",
    params:
        code=code("nmf"),
        settings=settings_of("nmf"),
    message:
        "{wildcards.sample}: components of patterns"
    script:
        "../../scripts/nmf.py"


rule clusters:
    input:
        nmf=rules.nmf.output.result,
        scan=rules.scan.output.result,
        preprocess=rules.preprocess.output.result,
        sidecars=[
            rules.nmf.output.sidecar,
            rules.scan.output.sidecar,
            rules.preprocess.output.sidecar,
        ],
        cif=cif_files,
    output:
        result="results/{sample}/clusters.h5",
        table="results/{sample}/clusters.csv",
        sidecar="results/{sample}/provenance/clusters.json",
    log:
        "results/{sample}/logs/clusters.log",
    benchmark:
        "results/{sample}/logs/clusters.benchmark.tsv"
    conda:
        "../../envs/clusters.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        device="auto",
    params:
        code=code("clusters"),
        settings=settings_of("clusters"),
        orientation=settings_of("orientation"),
        phases=phase_names,
    message:
        "{wildcards.sample}: name the clusters"
    script:
        "../../scripts/clusters.py"


rule template_mask:
    input:
        scan=rules.scan.output.result,
        preprocess=rules.preprocess.output.result,
        sidecars=[rules.scan.output.sidecar, rules.preprocess.output.sidecar],
        cif=cif_files,
        templates=template_files,
    output:
        result="results/{sample}/template_mask.h5",
        table="results/{sample}/template_mask.csv",
        vectors="results/{sample}/template_mask_polarisation.csv",
        sidecar="results/{sample}/provenance/template_mask.json",
    log:
        "results/{sample}/logs/template_mask.log",
    benchmark:
        "results/{sample}/logs/template_mask.benchmark.tsv"
    conda:
        "../../envs/template_mask.yaml"
    threads: 16
    resources:
        mem_mb=1000,
    params:
        code=code("template_mask"),
        settings=settings_of("template_mask"),
        phases=phase_names,
    message:
        "{wildcards.sample}: masks and images of the templates"
    script:
        "../../scripts/template_mask.py"


rule orientation:
    input:
        scan=rules.scan.output.result,
        preprocess=rules.preprocess.output.result,
        denoise=made("denoised", source_read),
        nonlocal_average=made("averaged", source_read),
        sidecars=[rules.scan.output.sidecar, rules.preprocess.output.sidecar],
        denoised_sidecar=made("denoised", source_read, sidecar=True),
        averaged_sidecar=made("averaged", source_read, sidecar=True),
        cif=cif_files,
    output:
        result="results/{sample}/orientation/{source}.h5",
        ang="results/{sample}/orientation/{source}.ang",
        ctf="results/{sample}/orientation/{source}.ctf",
        orix="results/{sample}/orientation/{source}_orix.h5",
        sidecar="results/{sample}/provenance/orientation_{source}.json",
    log:
        "results/{sample}/logs/orientation_{source}.log",
    benchmark:
        "results/{sample}/logs/orientation_{source}.benchmark.tsv"
    conda:
        "../../envs/orientation.yaml"
    threads: 16
    resources:
        mem_mb=4000,
        device="auto",
    params:
        code=code("orientation"),
        settings=settings_of("orientation"),
        phases=phase_names,
    message:
        "{wildcards.sample}: index {wildcards.source} patterns"
    script:
        "../../scripts/orientation.py"


rule grains:
    input:
        orientation=rules.orientation.output.result,
        scan=rules.scan.output.result,
        nonlocal_average=made("averaged", source_read),
        sidecars=[rules.orientation.output.sidecar, rules.scan.output.sidecar],
        averaged_sidecar=made("averaged", source_read, sidecar=True),
        cif=cif_files,
    output:
        result="results/{sample}/grains/{source}.h5",
        table="results/{sample}/grains/{source}.csv",
        boundaries="results/{sample}/grains/{source}_boundaries.csv",
        sidecar="results/{sample}/provenance/grains_{source}.json",
    log:
        "results/{sample}/logs/grains_{source}.log",
    benchmark:
        "results/{sample}/logs/grains_{source}.benchmark.tsv"
    conda:
        "../../envs/grains.yaml"
    threads: 1
    resources:
        mem_mb=4000,
    params:
        code=code("grains"),
        settings=settings_of("grains"),
        phases=phase_names,
    message:
        "{wildcards.sample}: grains of {wildcards.source} orientations"
    script:
        "../../scripts/grains.py"


rule evaluation:
    input:
        truth=truth_file,
        scan=rules.scan.output.result,
        preprocess=rules.preprocess.output.result,
        denoise=made("denoised", sources_indexed),
        nonlocal_average=made("averaged", sources_indexed),
        orientation=indexed("results/{sample}/orientation/{source}.h5"),
        sidecars=[rules.scan.output.sidecar, rules.preprocess.output.sidecar],
        orientation_sidecars=indexed(
            "results/{sample}/provenance/orientation_{source}.json"
        ),
        denoised_sidecar=made("denoised", sources_indexed, sidecar=True),
        averaged_sidecar=made("averaged", sources_indexed, sidecar=True),
        cif=cif_files,
    output:
        result="results/{sample}/evaluation.h5",
        table="results/{sample}/evaluation.csv",
        sidecar="results/{sample}/provenance/evaluation.json",
    log:
        "results/{sample}/logs/evaluation.log",
    benchmark:
        "results/{sample}/logs/evaluation.benchmark.tsv"
    conda:
        "../../envs/evaluation.yaml"
    threads: 16
    resources:
        mem_mb=4000,
        device="auto",
    params:
        code=code("evaluation"),
        settings=settings_of("evaluation"),
        orientation=settings_of("orientation"),
        simulate=simulation_of,
        phases=phase_names,
    message:
        "{wildcards.sample}: compare with the known truth"
    script:
        "../../scripts/evaluation.py"
