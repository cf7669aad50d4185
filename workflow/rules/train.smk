"""Training of the networks, run by name and rarely: the weights in use are committed beside the library."""


rule train:
    output:
        weights=expand(
            "training/{network}.safetensors", network=("denoise", "centre", "ellipse")
        ),
        card="training/model_card.json",
        curves="training/curves.csv",
        table="training/table.csv",
        examples="training/examples.npz",
        figures=expand("training/training_curves.{kind}", kind=("png", "pdf")),
        sidecar="training/provenance.json",
    log:
        "training/train.log",
    conda:
        "../../envs/train.yaml"
    threads: 16
    resources:
        mem_mb=8000,
        device="auto",
    params:
        code=code("train"),
        settings=configuration.general(config, "training"),
    message:
        "train the networks of the preprocessing"
    script:
        "../../scripts/train.py"
