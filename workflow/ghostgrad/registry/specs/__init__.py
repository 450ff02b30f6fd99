"""The parameters of a run: one frozen dataclass per task, with type, unit, limits, default and
meaning of every parameter. Their JSON schemas are made from them."""
