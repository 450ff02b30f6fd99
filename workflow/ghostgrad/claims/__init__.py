"""The ledger: each claim of the papers as comparisons of a number of ours with the paper's and, where that is wrong,
with the corrected one. Verdicts, a closed list: holds | holds as corrected | fails | editorial | not run (reason)."""
