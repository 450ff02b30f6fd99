"""The claims of the papers, one function each, and their verdicts.

A claim is decided by comparisons of a number of ours with the paper's number and, if that is wrong,
with the corrected one. The possible verdicts are: holds | holds as corrected | fails | editorial |
not run (reason).

comparison     one number beside the paper's, its standard error, and the verdict over several
evidence       what a claim may ask of the finished runs of a scale
layers         layers that claims compute on the spot, by Monte Carlo or quadrature
judge          the verdict of a claim, and the rows of claims.csv
ghost, ghost_images, ghost_errata, lalc, lalc_training, bnres, bnres_training, across
               the functions; workflow/claims/<module>.yaml has the statements. A function is named
               after the claim: `ghost.eq1` is `ghost.eq1`, erratum `E-G8` is `ghost_errata.e_g8`.
"""
