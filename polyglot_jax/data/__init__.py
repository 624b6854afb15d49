"""Token shards: the format, the encoder, and the mixture that training reads."""
