"""Closed forms and quadrature: what the four papers derive, as printed and as corrected. Imports scipy only, and
late."""
