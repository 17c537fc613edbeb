"""The commands of `sd-pipeline`, one module for each group: parse, call, print."""
