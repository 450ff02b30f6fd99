"""What there is to compute: experiments, runs, artifacts and claims, read from workflow/*.yaml.
Imports neither torch nor pandas."""
