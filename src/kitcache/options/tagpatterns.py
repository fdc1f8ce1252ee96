"""Patterns of tag names: `*`, `?` and `[…]` as in a shell, but `*` matches slashes too."""


def is_pattern(text: str) -> bool:
    """Return True if the text can match other names than itself."""
    return any(sign in text for sign in "*?[")


def find_pattern(patterns: tuple[str, ...], tag: str) -> str | None:
    """Return the first pattern that matches the tag or is equal to it, e.g. `v[1]` to v[1]."""
    for pattern in patterns:
        if tag == pattern:
            return pattern
        # Plain names skip fnmatch: its cache of regular expressions is small for hundreds of names.
        if is_pattern(pattern):
            from fnmatch import fnmatchcase  # noqa: PLC0415 - plain names do not need it

            if fnmatchcase(tag, pattern):
                return pattern
    return None


def covers(wide: str, narrow: str) -> bool:
    """Return True if every tag that `narrow` matches is matched by `wide`; False if unsure."""
    if wide == narrow or (wide and not wide.strip("*")):
        return True
    if "[" in narrow or (("[" in wide or "?" in wide) and is_pattern(narrow)):
        return False
    # In `narrow`, wildcards are matched as text: only a star of `wide` can match them.
    return find_pattern((wide,), narrow) is not None
