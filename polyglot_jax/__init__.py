"""polyglot-jax: Korean GPT-NeoX models in JAX, from raw text to a published table."""
