"""ghostgrad: every table, figure and numeric claim of four papers on exploding gradients.

registry -> runs -> tidy -> tables, figures -> report. The default target builds every artifact at
config.yaml's scale; `ghost`, `lalc` and `bnres` build one paper's artifacts, `cpu` those that need
neither a GPU nor external data.
"""

from snakemake.utils import min_version

min_version("9.27")


configfile: f"{workflow.basedir}/config.yaml"


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"


if not BUILD.partial:

    include: "workflow/rules/runs.smk"


include: "workflow/rules/tables.smk"
include: "workflow/rules/figures.smk"


localrules:
    all,
    ghost,
    lalc,
    bnres,
    cpu,


rule all:
    default_target: True
    input:
        BUILD.all_files(),


rule ghost:
    input:
        BUILD.paper_files("ghost"),


rule lalc:
    input:
        BUILD.paper_files("lalc"),


rule bnres:
    input:
        BUILD.paper_files("bnres"),


rule cpu:
    input:
        BUILD.cpu_files(),


# Every rule is known from here on.
if IS_MAIN_PROCESS:
    with exit_on_bad_input():
        check_targets(REGISTRY, [rule.name for rule in workflow.rules])


onstart:
    remove_default_rate_limit(workflow)
    jobs = workflow.dag.needrun_jobs()
    print(BUILD.announcement(jobs, workflow.cores, workflow.non_local_exec), file=sys.stderr)


onsuccess:
    print("\n".join(overview.closing_lines(REGISTRY, SCALE, BUILD.not_run)), file=sys.stderr)
