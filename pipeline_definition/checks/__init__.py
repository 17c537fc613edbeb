"""What can be checked before a start."""
