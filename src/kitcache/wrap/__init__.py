"""Somebody else's build command: its local caches are found, locked, and swept after it."""
