"""
This part makes the data sets that ship inside a package, checks the others, and makes copies of
folders of images at a smaller size, where a spec asks for one.

REQUIRED INPUTS: none; external data are where config.yaml says.
OUTPUTS: results/data/<name>.json with counts, classes and checksum, but no path, so that moving the
data reruns nothing; results/data/<name>-<short side>.json, the same of the copy in
results/data/<name>-<short side>/.
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


rule resized_data:
    input:
        "results/data/{name}.json",
    output:
        manifest="results/data/{name}-{short}.json",
    log:
        "results/data/{name}-{short}.log",
    wildcard_constraints:
        name="[a-z0-9_]+",
        short=r"\d+",
    conda:
        "../../envs/train.yaml"
    threads: 16
    resources:
        mem_mb=8000,
        runtime=720,
    shell:
        "ghostgrad resized-data {wildcards.name} {wildcards.short} --source {input}"
        " --manifest {output.manifest} --threads {threads} > {log} 2>&1"
