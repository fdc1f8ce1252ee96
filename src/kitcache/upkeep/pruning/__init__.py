"""prune: which tags a policy keeps, and when they were last used."""
