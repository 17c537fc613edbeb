"""One picture's bytes: format, structure, colours, pixels and look."""
