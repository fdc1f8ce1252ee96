"""copy: caches between directories and object stores, in every direction."""
