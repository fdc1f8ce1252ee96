"""`kitcache build`, the command itself, on a real BuildKit: every option and every exporter."""
