"""Morpheme-aware byte-level BPE: training."""
