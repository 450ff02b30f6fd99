"""From the files of runs to numbers: tidy rows, measured quantities, standard errors."""
