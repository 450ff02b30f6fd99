"""
This part draws figures.

REQUIRED INPUTS: results/{scale}/tidy/{artifact}.csv and the runs it names
OUTPUTS: results/{scale}/figures/{artifact}.{svg,pdf,png} and .csv, the numbers drawn
"""


localrules:
    figure,


rule figure:
    input:
        artifact_reference,
        runs=finished_runs,
        tidy="results/{scale}/tidy/{artifact}.csv",
        code=figure_code,
    output:
        multiext("results/{scale}/figures/{artifact}", ".pdf", ".png", ".csv"),
        svg=report(
            "results/{scale}/figures/{artifact}.svg",
            caption="../report/artifact.rst",
            category=paper_title,
            labels=report_labels("figure"),
        ),
    log:
        "results/{scale}/logs/figures/{artifact}.log",
    conda:
        "../../envs/report.yaml"
    params:
        definition=artifact_definition,
        caption=caption,
        why_not=why_not,
    shell:
        "ghostgrad figure {wildcards.artifact} --scale {wildcards.scale} --why-not={params.why_not:q} > {log} 2>&1"
