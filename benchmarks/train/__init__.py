"""Training speed against diffusers' own text-to-image script: `python -m benchmarks.train`."""
