"""Robustness between attack and certificate: the catalogue, suites, the evaluator, curves over the radius."""
