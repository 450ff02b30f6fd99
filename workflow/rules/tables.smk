"""
This part gathers runs into one tidy CSV per artifact and puts the paper's numbers beside ours.

REQUIRED INPUTS: metrics.csv of the artifact's runs, workflow/reference/<artifact>.csv
OUTPUTS: results/{scale}/tidy/{artifact}.csv, results/{scale}/tables/{artifact}.{csv,md,tex,html};
for what cannot be measured here, the tables and frames that say why; results/{scale}/artifacts.csv,
the list of all artifacts; results/{scale}/claims.{csv,html}.

The modules that draw and the templates of the pages are inputs: editing one redraws what it draws
and reruns no run. The parameter `definition` holds what the registry says of an artifact, so that
an edited definition redraws too.
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
        runs=BUILD.artifact_metrics,
        code=library_files(*RULE_MODULES["tidy"]),
    output:
        "results/{scale}/tidy/{artifact}.csv",
    log:
        "results/{scale}/logs/tidy/{artifact}.log",
    conda:
        "../../envs/report.yaml"
    params:
        definition=BUILD.artifact_definition,
    shell:
        "ghostgrad tidy {wildcards.artifact} {input.runs} --scale {wildcards.scale} > {log} 2>&1"


rule table:
    input:
        BUILD.artifact_references,
        runs=BUILD.artifact_metrics,
        tidy="results/{scale}/tidy/{artifact}.csv",
        code=BUILD.table_code,
        page=page_templates("table"),
    output:
        multiext("results/{scale}/tables/{artifact}", ".csv", ".md", ".tex"),
        html=report(
            "results/{scale}/tables/{artifact}.html",
            caption="../report/artifact.rst",
            category=BUILD.paper_title,
            labels=report_labels("table"),
        ),
    log:
        "results/{scale}/logs/tables/{artifact}.log",
    conda:
        "../../envs/report.yaml"
    params:
        definition=BUILD.artifact_definition,
        caption=BUILD.caption,
        why_not=BUILD.reason_not_run,
    shell:
        "ghostgrad table {wildcards.artifact} --scale {wildcards.scale}"
        " --why-not={params.why_not:q} > {log} 2>&1"


rule claims:
    input:
        BUILD.claim_metrics,
        code=library_files(*REGISTRY.claim_modules()),
        page=page_templates("claims"),
    output:
        csv=f"results/{SCALE}/claims.csv",
        html=report(
            f"results/{SCALE}/claims.html",
            caption="../report/claims.rst",
            category="Claims and errata",
        ),
    log:
        f"results/{SCALE}/logs/claims.log",
    conda:
        "../../envs/report.yaml"
    params:
        definitions=BUILD.claim_definitions,
        scale=SCALE,
    shell:
        "ghostgrad claims --scale {params.scale} > {log} 2>&1"


rule not_run:
    input:
        BUILD.references(BUILD.not_run),
        code=library_files(*RULE_MODULES["not_run"]),
        page=page_templates("table"),
    output:
        BUILD.files_not_run(),
    log:
        f"results/{SCALE}/logs/not_run.log",
    conda:
        "../../envs/report.yaml"
    params:
        definitions=BUILD.definitions(BUILD.not_run),
        reasons=json.dumps(BUILD.not_run),
        scale=SCALE,
    shell:
        "ghostgrad not-run {params.reasons:q} --scale {params.scale} > {log} 2>&1"


rule artifacts:
    input:
        BUILD.leading_files(),
        code=library_files(*RULE_MODULES["artifacts"]),
        page=page_templates("artifacts"),
    output:
        csv=f"results/{SCALE}/artifacts.csv",
        html=report(
            f"results/{SCALE}/artifacts.html",
            caption="../report/artifacts.rst",
            category="All artifacts",
        ),
    log:
        f"results/{SCALE}/logs/artifacts.log",
    conda:
        "../../envs/report.yaml"
    params:
        definitions=BUILD.definitions(REGISTRY.artifacts),
        reasons=json.dumps(BUILD.not_run),
        scale=SCALE,
    shell:
        "ghostgrad artifacts {params.reasons:q} --scale {params.scale} > {log} 2>&1"
