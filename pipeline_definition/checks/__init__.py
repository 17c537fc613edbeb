"""What can be told before a start."""
