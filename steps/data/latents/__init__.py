"""What a latents shard holds, and in which order training sees its rows."""
