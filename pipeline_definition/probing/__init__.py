"""Jobs of minutes that say whether an account's hosts, network, storage and GPUs do what the pipeline needs."""
