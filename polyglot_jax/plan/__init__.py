"""Plans: what an experiment needs on hardware that is not here, by the real compilers."""
