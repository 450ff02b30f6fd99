"""From the files of runs to numbers.

tidy        one CSV row per finished run and table cell: identity, metrics, provenance
results     what tables and figures read: tidy rows, series, probes, reference numbers
statistics  standard errors by the jackknife, growth rates of curves over layers
measured    one quantity of a table, and what a table function declares
measures    one function per kind of table: from Results to measured quantities
"""
