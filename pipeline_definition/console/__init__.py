"""The console: a page on this machine from which a pipeline is run, on AWS or on the local control plane."""
