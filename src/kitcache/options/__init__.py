"""The user's words as values: policies, ages, sizes. No I/O."""
