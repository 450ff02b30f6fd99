"""
This part computes runs: one rule per task, all from one template.

REQUIRED INPUTS: results/data/<name>.json for a run that reads images, another run's weights.pt for one that starts
from it.
OUTPUTS: results/{scale}/runs/{experiment}/{variant}-s{seed}/{spec.json,series.csv,probes.csv,env.json,metrics.csv}, and
weights.pt where the experiment says publish_weights.

A run works in a private state folder and publishes from there at its end: Snakemake deletes declared outputs when a job
starts or fails. `params` holds the canonical spec and nothing else, so only what changes a number reruns a run.
"""


rule simulate:
    input:
        run_inputs,
    output:
        multiext(
            "results/{scale}/runs/{experiment}/{variant}-s{seed}/",
            spec="spec.json",
            series="series.csv",
            probes="probes.csv",
            env="env.json",
            metrics="metrics.csv",
        ),
    log:
        "results/{scale}/logs/{experiment}/{variant}-s{seed}.log",
    wildcard_constraints:
        experiment=of_task("simulate"),
    conda:
        "../../envs/train.yaml"
    threads: run_resource("threads", 1)
    resources:
        gpu=run_resource("gpu", 0),
        mem_mb=run_resource("mem_mb", 2000),
        runtime=run_resource("runtime", 60),
    params:
        spec=run_spec,
    shell:
        "ghostgrad run {input} --spec {params.spec:q} --out $(dirname {output.metrics})"
        " --threads {threads} --gpus {resources.gpu} --files '{output}' > {log} 2>&1"


use rule simulate as sample with:
    wildcard_constraints:
        experiment=of_task("sample"),


use rule simulate as initialize with:
    wildcard_constraints:
        experiment=of_task("initialize"),


use rule simulate as weights with:
    wildcard_constraints:
        experiment=of_task("weights"),


use rule simulate as classify with:
    wildcard_constraints:
        experiment=of_task("classify"),


use rule simulate as pretrain with:
    output:
        multiext(
            "results/{scale}/runs/{experiment}/{variant}-s{seed}/",
            spec="spec.json",
            series="series.csv",
            probes="probes.csv",
            env="env.json",
            weights="weights.pt",
            metrics="metrics.csv",
        ),
    wildcard_constraints:
        experiment=of_task("classify", weights=True),


use rule simulate as detect with:
    wildcard_constraints:
        experiment=of_task("detect"),
