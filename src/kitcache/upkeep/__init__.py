"""Maintenance of caches: prune, trim, verify, repair, tag, untag, merge, and publishing."""
