"""Which daemon, and how to get at it."""
