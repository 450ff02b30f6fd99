"""
This part makes the data sets that ship inside a package and checks the others.

REQUIRED INPUTS: none; external data lie where config.yaml says.
OUTPUTS: results/data/<name>.json, counts, classes and checksum but no path, so that data that move rerun nothing.
"""


localrules:
    data,


rule data:
    output:
        manifest="results/data/{name}.json",
    log:
        "results/data/{name}.log",
    wildcard_constraints:
        name="[a-z0-9_]+",
    conda:
        "../../envs/train.yaml"
    shell:
        "ghostgrad data {wildcards.name} --manifest {output.manifest} > {log} 2>&1"
