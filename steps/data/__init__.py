"""From a list of addresses to latents that never make a GPU wait: fetching, shards, latents, order, loader."""
