"""Prompting an endpoint: one picture, the playground, and the study of what works."""
