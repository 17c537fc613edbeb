"""The parts of Stable Diffusion: loading them, their schedulers, and the moving average of the weights."""
