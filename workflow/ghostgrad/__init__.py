"""Reproduces every table, figure and numeric claim of four papers on exploding gradients.

The modules and packages in order. Each imports only from itself and from those above it
(`tests/unit/test_imports.py` reads this list):

    checks        errors for bad input: one line that names file, key and nearest valid value
    dependencies  which modules a module depends on, derived from the imports
    files         CSV tables, and files that are written whole or not at all
    rng           random streams
    theory        closed forms and quadrature, as printed in the papers and as corrected
    registry      what there is to compute: experiments, artifacts, claims, tasks, data sets
    runs          one run on disk: checkpoints, lock and stop request, published files, provenance
    data          data sets: reading, checking and manifests; image transforms
    models        architectures and initialization
    training      one training step: batches, update rules, schedules, probes, several processes
    tasks         what a run computes: one readable function per task
    analysis      from the files of runs to measured quantities with standard errors
    claims        one function per claim of a paper, and its verdict
    figures       one module per paper, one style
    report        tables with verdicts, their files, the list of artifacts, the findings
    cli           the command line, and the functions that the rules call
"""
