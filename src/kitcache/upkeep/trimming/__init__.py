"""trim: which steps of a tag are the coldest, and the tag without them."""
