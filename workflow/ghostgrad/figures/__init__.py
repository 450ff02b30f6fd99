"""Figures: one module per paper, whose public functions turn Results into a figure and the frame of
the numbers that it shows.

An artifact of workflow/experiments names such a function under `figure`; its options are the
function's parameters after `results`. `registry/signatures.py` reads their annotations from the
text of the module, so helpers have names that begin with an underscore.
"""
