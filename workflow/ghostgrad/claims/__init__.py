"""The claims of the papers, one function each, and their verdicts.

A claim is decided by comparisons of a number of ours with that of the statement and, if that is
wrong, with the corrected one. The possible verdicts are in `ghostgrad.registry.verdict`.

comparison     one number beside that of a statement, and the verdict over several
evidence       what a claim may ask of the finished runs of a scale
layers         layers that claims compute on the spot, by Monte Carlo or quadrature
judge          the verdict of a claim, and the rows of claims.csv
ghost, ghost_curves, ghost_images, ghost_errata, lalc, lalc_training, bnres, bnres_training, across
               the functions; workflow/claims/<module>.yaml has the statements. A function is named
               after the claim: `ghost.eq1` is `ghost.eq1`, erratum `E-G8` is `ghost_errata.e_g8`.
"""
