"""
This part draws figures.

REQUIRED INPUTS: results/{scale}/tidy/{artifact}.csv and the runs it names
OUTPUTS: results/{scale}/figures/{artifact}.{svg,pdf,png}, and .csv with the numbers drawn
"""


localrules:
    figure,


rule figure:
    input:
        BUILD.artifact_references,
        runs=BUILD.artifact_metrics,
        tidy="results/{scale}/tidy/{artifact}.csv",
        code=BUILD.figure_code,
    output:
        multiext("results/{scale}/figures/{artifact}", ".pdf", ".png", ".csv"),
        svg=report(
            "results/{scale}/figures/{artifact}.svg",
            caption="../report/artifact.rst",
            category=BUILD.paper_title,
            labels=report_labels("figure"),
        ),
    log:
        "results/{scale}/logs/figures/{artifact}.log",
    conda:
        "../../envs/report.yaml"
    params:
        definition=BUILD.artifact_definition,
        caption=BUILD.caption,
        why_not=BUILD.reason_not_run,
    shell:
        "ghostgrad figure {wildcards.artifact} --scale {wildcards.scale}"
        " --why-not={params.why_not:q} > {log} 2>&1"
