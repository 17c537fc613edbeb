"""The local run's world: a data set that draws itself, the web that serves it, and its small models."""
