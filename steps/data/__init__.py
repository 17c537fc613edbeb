"""From a list of addresses to batches that never make a GPU wait.

tables/ and pictures/ are read by fetching/, which shards/ is built on; collecting/ makes the shards of a whole table,
encoding/ makes latents of them, and loading/ deals those out as batches.
"""
