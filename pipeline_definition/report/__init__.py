"""The run's page: one HTML file that shows what happened, made from the run's artifacts alone."""
