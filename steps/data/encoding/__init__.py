"""From verified shards to latents and the reference set."""
