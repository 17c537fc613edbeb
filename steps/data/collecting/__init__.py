"""The shards of a whole url table: what is to be fetched, what was, and which samples count."""
