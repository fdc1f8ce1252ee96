"""tag, untag, merge: which entries index.json has, and under which names."""
