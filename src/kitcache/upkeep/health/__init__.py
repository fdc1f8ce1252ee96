"""verify and repair: what no build could import, and the least that mends it."""
