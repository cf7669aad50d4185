"""Atomic-resolution scans by abTEM, by name: `snakemake simulate_atomic --sdm conda`. Truth is known; nothing here is in the demo.

Whatever uses them is run with `--sdm conda` too: without it Snakemake takes them for made by other software, and anew.
"""

SPECIMENS = ("lifepo4", "half", "fepo4", "displaced", "wall")
PARTS = {"olivine": SPECIMENS[:-1], "wall": ("wall",)}
STUDIED = [f"olivine_{t}A" for t in (50, 200, 400, 700)]
STUDIED += [f"wall_{t}A" for t in (50, 100, 200)]
PHONONS = {"wall": 6}  # configurations that are averaged; of all others 2
OPTICS = {
    "energy_kev": 200,
    "convergence_mrad": 22,
    "step_angstrom": 0.29,
    "detector_px": 64,
    "pixel_inv_angstrom": 0.07,
}


wildcard_constraints:
    specimen="|".join(SPECIMENS),
    part="|".join(PARTS),
    phonons=r"\d+",
    angstrom=r"\d+",
    electrons=r"\d+",


rule multislice:
    output:
        patterns="specimens/parts/{specimen}_{phonons}.npy",
        sidecar="specimens/provenance/multislice_{specimen}_{phonons}.json",
    log:
        "specimens/logs/multislice_{specimen}_{phonons}.log",
    conda:
        "../../envs/multislice.yaml"
    threads: 1
    resources:
        mem_mb=2000,
    params:
        code=code("multislice"),
        optics=OPTICS,
    message:
        "{wildcards.specimen}: multislice, configuration {wildcards.phonons} of the phonons"
    script:
        "../../scripts/multislice.py"


rule specimen:
    input:
        parts=lambda wildcards: expand(
            "specimens/parts/{specimen}_{phonons}.npy",
            specimen=wildcards.specimen,
            phonons=range(PHONONS.get(wildcards.specimen, 2)),
        ),
        sidecars=lambda wildcards: expand(
            "specimens/provenance/multislice_{specimen}_{phonons}.json",
            specimen=wildcards.specimen,
            phonons=range(PHONONS.get(wildcards.specimen, 2)),
        ),
    output:
        patterns="specimens/{specimen}.npy",
        truth="specimens/{specimen}.csv",
        sidecar="specimens/provenance/specimen_{specimen}.json",
    log:
        "specimens/logs/specimen_{specimen}.log",
    conda:
        "../../envs/specimen.yaml"
    threads: 1
    resources:
        mem_mb=1000,
    params:
        code=code("specimen"),
    message:
        "{wildcards.specimen}: average the configurations of the phonons"
    script:
        "../../scripts/specimen.py"


rule specimen_scan:
    input:
        patterns=rules.specimen.output.patterns,
        sidecars=rules.specimen.output.sidecar,
    output:
        counts="specimens/scans/{specimen}_{angstrom}A_{electrons}.npy",
        sidecar="specimens/provenance/scan_{specimen}_{angstrom}A_{electrons}.json",
    log:
        "specimens/logs/scan_{specimen}_{angstrom}A_{electrons}.log",
    conda:
        "../../envs/specimen_scan.yaml"
    threads: 1
    resources:
        mem_mb=1000,
    params:
        code=code("specimen_scan"),
        optics=OPTICS,
        seed=1,
    message:
        "{wildcards.specimen}: counts at {wildcards.electrons} electrons per pattern"
    script:
        "../../scripts/specimen_scan.py"


rule simulate_atomic:
    input:
        expand("specimens/{specimen}.npy", specimen=SPECIMENS),
        expand(
            "specimens/scans/{specimen}_700A_50000.npy",
            specimen=[s for s in SPECIMENS if s != "wall"],
        ),
        "specimens/scans/wall_200A_50000.npy",
    localrule: True


rule study_atomic_part:
    input:
        patterns=lambda wildcards: expand(
            "specimens/{specimen}.npy", specimen=PARTS[wildcards.part]
        ),
        sidecars=lambda wildcards: expand(
            "specimens/provenance/specimen_{specimen}.json",
            specimen=PARTS[wildcards.part],
        ),
        cif=os.path.relpath(SCRIPTS.parent / "config" / "cif" / "LiFePO4.cif"),
    output:
        table="specimens/study/{part}_{angstrom}A.csv",
        columns="specimens/study/{part}_{angstrom}A_columns.csv",
        sidecar="specimens/provenance/study_{part}_{angstrom}A.json",
    log:
        "specimens/logs/study_{part}_{angstrom}A.log",
    conda:
        "../../envs/study_atomic_part.yaml"
    threads: 1
    resources:
        mem_mb=4000,
    params:
        code=code("study_atomic_part"),
        specimens=lambda wildcards: PARTS[wildcards.part],
        optics=OPTICS,
        doses=[50000, 5000, 500, 150, 50, 15, 5],
        seed=1,
    message:
        "{wildcards.part}, {wildcards.angstrom} Å: image by masks and classically"
    script:
        "../../scripts/study_atomic_part.py"


rule study_atomic:
    input:
        tables=expand("specimens/study/{part}.csv", part=STUDIED),
        columns=expand("specimens/study/{part}_columns.csv", part=STUDIED),
        sidecars=expand("specimens/provenance/study_{part}.json", part=STUDIED),
    output:
        table="studies/atomic.csv",
        columns="studies/atomic_wall.csv",
        figures=expand(
            "studies/atomic_{figure}.{kind}",
            figure=("thickness", "dose", "talk", "wall"),
            kind=("png", "pdf"),
        ),
        sidecar="studies/provenance/atomic.json",
    log:
        "results/logs/study_atomic.log",
    conda:
        "../../envs/study_atomic.yaml"
    threads: 1
    resources:
        mem_mb=1000,
    params:
        code=code("study_atomic"),
    message:
        "gather what masks and classical images make of simulated specimens"
    script:
        "../../scripts/study_atomic.py"
