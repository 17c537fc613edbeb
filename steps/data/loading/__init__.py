"""From latents to batches that never make a GPU wait."""
