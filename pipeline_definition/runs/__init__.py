"""Executions: start, watch, stop, sum up."""
