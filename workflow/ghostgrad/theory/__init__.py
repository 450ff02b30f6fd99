"""Closed forms and quadrature: what the papers derive, as printed and as corrected.

Nothing here depends on a run. scipy is imported only inside the function that integrates, so that
importing this package stays quick.
"""
