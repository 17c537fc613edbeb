"""From a list of addresses to batches that never make a GPU wait."""
