"""Plans: what an experiment needs on hardware that is not here, by the real compilers."""

import sys

from polyglot_jax.plan.said import what_compilers_say, worth_telling

with what_compilers_say() as _said:
    import jax  # noqa: F401 - here for the first time, with the CUDA plugin where it is installed
sys.stderr.write(worth_telling(_said[0]))
