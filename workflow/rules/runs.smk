"""
This part computes runs: one rule per task, and `pretrain` for the `classify` runs that publish
their weights, all from one template.

REQUIRED INPUTS: results/data/<name>.json for a run that reads images; another run's weights.pt for
one that starts from it.
OUTPUTS: results/{scale}/runs/{experiment}/{variant}-s{seed}/{spec.json,series.csv,probes.csv,
env.json,metrics.csv}, and weights.pt where the experiment sets publish_weights.

A run works in a private state folder and publishes from there at its end, because Snakemake deletes
declared outputs when a job starts or fails. `params` holds the canonical spec and nothing else, so
that only what changes a number reruns a run.
"""

# Only the experiments, and whether weights.pt is among the outputs, differ between the rules.
for rule_name, (task, publishes_weights) in RUN_RULES.items():

    rule:
        name:
            rule_name
        input:
            BUILD.run_inputs,
        output:
            multiext(
                "results/{scale}/runs/{experiment}/{variant}-s{seed}/",
                **run_files(publishes_weights),
            ),
        log:
            "results/{scale}/logs/{experiment}/{variant}-s{seed}.log",
        wildcard_constraints:
            experiment=BUILD.experiments_pattern(task, publishes_weights),
        conda:
            "../../envs/train.yaml"
        threads: BUILD.run_resource("threads", 1)
        resources:
            gpu=BUILD.run_resource("gpu", 0),
            mem_mb=BUILD.run_resource("mem_mb", 2000),
            runtime=BUILD.run_resource("runtime", 60),
        params:
            spec=BUILD.run_spec,
        shell:
            "ghostgrad run {input} --spec {params.spec:q} --out $(dirname {output.metrics})"
            " --threads {threads} --gpus {resources.gpu} --files '{output}' > {log} 2>&1"
