"""The jobs that a definition will start, and on what."""
