"""What the pipeline costs, what it would cost on other machines, and what it earns. Imports neither torch nor an SDK."""
