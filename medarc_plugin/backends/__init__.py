"""The built-in backends. They register through the hooks, as anybody's do."""
