"""Morpheme-aware byte-level BPE: training and measurement."""
