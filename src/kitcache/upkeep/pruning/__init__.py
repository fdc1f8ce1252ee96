"""prune: decides by a policy which tags to keep, and removes the other tags."""
