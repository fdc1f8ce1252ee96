"""Run a build command of another client: find its local caches, lock them, sweep them after it."""
