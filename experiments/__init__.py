"""Experiments: one file, one literal `Experiment` each, found by file name."""
