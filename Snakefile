"""ghostgrad: every table, figure and numeric claim of four papers on exploding gradients.

registry -> runs -> tidy -> tables, figures -> report. The default target builds every artifact at config.yaml's scale;
`ghost`, `lalc`, `bnres` build one paper's, `cpu` what needs neither a GPU nor external data.
"""

from snakemake.utils import min_version

min_version("9.27")


configfile: f"{workflow.basedir}/config.yaml"


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"


if not PARTIAL:

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
        f"results/{SCALE}/artifacts.csv",
        f"results/{SCALE}/claims.csv",
        artifact_files(REGISTRY.artifacts.values()),


rule ghost:
    input:
        artifact_files(of_paper("ghost")),


rule lalc:
    input:
        artifact_files(of_paper("lalc")),


rule bnres:
    input:
        artifact_files(of_paper("bnres")),


rule cpu:
    input:
        artifact_files(on_cpu()),


check_targets()


onstart:
    without_rate_limit()
    print(expected(), file=sys.stderr)


onsuccess:
    print("\n".join(overview.closing_lines(REGISTRY, SCALE, WHY_NOT)), file=sys.stderr)
