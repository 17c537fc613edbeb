"""What the pipeline costs, what it would cost on other machines, and what it earns. Imports no torch and no SDK."""
