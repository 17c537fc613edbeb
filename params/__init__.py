"""What a run IS: typed settings, the named parameter sets, and every string that two rooms share."""
