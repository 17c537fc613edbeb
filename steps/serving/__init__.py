"""The endpoint: request schema, batching, the pipeline behind it, and the HTTP server around them."""
