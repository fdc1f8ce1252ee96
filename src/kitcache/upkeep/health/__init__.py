"""verify and repair: find tags that a build could not import, and repair them with few changes."""
