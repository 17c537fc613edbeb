"""The training loader against other loaders over the same samples, and its start-up at many shards."""
