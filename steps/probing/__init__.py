"""What a host of the probe looks at: its GPUs and disk, its network, its storage, and the job's other hosts."""
