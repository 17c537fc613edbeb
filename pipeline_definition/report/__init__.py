"""The run's page: one HTML file that tells what happened, made from the run's artifacts alone."""
