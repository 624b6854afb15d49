"""Evaluation of language models: bits per byte of held-out text, beside an n-gram baseline."""
