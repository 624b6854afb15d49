"""Evaluation of language models: held-out text now, benchmarks by task."""
