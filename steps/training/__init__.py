"""Training over any number of ranks: the same model from the same settings, wherever it was interrupted."""
