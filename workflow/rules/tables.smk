"""
This part gathers runs into one tidy CSV per artifact and puts the paper's numbers beside ours.

REQUIRED INPUTS: metrics.csv of the artifact's runs, workflow/reference/<artifact>.csv
OUTPUTS: results/{scale}/tidy/{artifact}.csv, results/{scale}/tables/{artifact}.{csv,md,tex,html}, and for what cannot be
measured here the tables and frames that say why; results/{scale}/artifacts.csv, the list of all.

The modules that draw are inputs: editing one redraws, and reruns nothing else. The parameter `definition`, all that the
registry says of an artifact, is there so that an edited definition redraws too.
"""


localrules:
    tidy,
    table,
    claims,
    not_run,
    artifacts,


ruleorder: not_run > table > figure


rule tidy:
    input:
        runs=finished_runs,
        code=code("analysis.tidy"),
    output:
        "results/{scale}/tidy/{artifact}.csv",
    log:
        "results/{scale}/logs/tidy/{artifact}.log",
    conda:
        "../../envs/report.yaml"
    params:
        definition=artifact_definition,
    shell:
        "ghostgrad tidy {wildcards.artifact} {input.runs} --scale {wildcards.scale} > {log} 2>&1"


rule table:
    input:
        artifact_reference,
        runs=finished_runs,
        tidy="results/{scale}/tidy/{artifact}.csv",
        code=table_code,
    output:
        multiext("results/{scale}/tables/{artifact}", ".csv", ".md", ".tex"),
        html=report(
            "results/{scale}/tables/{artifact}.html",
            caption="../report/artifact.rst",
            category=paper_title,
            labels=report_labels("table"),
        ),
    log:
        "results/{scale}/logs/tables/{artifact}.log",
    conda:
        "../../envs/report.yaml"
    params:
        definition=artifact_definition,
        caption=caption,
        why_not=why_not,
    shell:
        "ghostgrad table {wildcards.artifact} --scale {wildcards.scale} --why-not={params.why_not:q} > {log} 2>&1"


rule claims:
    input:
        claim_runs,
        code=code(*REGISTRY.claim_modules()),
    output:
        csv=f"results/{SCALE}/claims.csv",
        html=report(f"results/{SCALE}/claims.html", caption="../report/claims.rst", category="Claims and errata"),
    log:
        f"results/{SCALE}/logs/claims.log",
    conda:
        "../../envs/report.yaml"
    params:
        definitions=claim_definitions,
        scale=SCALE,
    shell:
        "ghostgrad claims --scale {params.scale} > {log} 2>&1"


rule not_run:
    input:
        references(WHY_NOT),
        code=code("report.tables", "report.render", "figures.style"),
    output:
        artifact_files(REGISTRY.artifacts[name] for name in WHY_NOT),
    log:
        f"results/{SCALE}/logs/not_run.log",
    conda:
        "../../envs/report.yaml"
    params:
        definitions=definitions(WHY_NOT),
        reasons=json.dumps(WHY_NOT),
        scale=SCALE,
    shell:
        "ghostgrad not-run {params.reasons:q} --scale {params.scale} > {log} 2>&1"


rule artifacts:
    input:
        leading_files(REGISTRY.artifacts.values()),
        code=code("report.overview"),
    output:
        csv=f"results/{SCALE}/artifacts.csv",
        html=report(f"results/{SCALE}/artifacts.html", caption="../report/artifacts.rst", category="All artifacts"),
    log:
        f"results/{SCALE}/logs/artifacts.log",
    conda:
        "../../envs/report.yaml"
    params:
        definitions=definitions(REGISTRY.artifacts),
        reasons=json.dumps(WHY_NOT),
        scale=SCALE,
    shell:
        "ghostgrad artifacts {params.reasons:q} --scale {params.scale} > {log} 2>&1"
