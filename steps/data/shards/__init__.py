"""How a shard is made: rows are fetched, read, written and verified."""
