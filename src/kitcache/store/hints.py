"""Commands that an error message tells the user to run, ready to paste into a shell."""

from kitcache.errors import printable


def repair_command(path: str) -> str:
    """Return the command that repairs a cache, or removes what cannot be repaired."""
    return command_line("verify", path, "--repair")


def command_line(command: str, path: str, *words: str) -> str:
    """Return a kitcache command on a directory."""
    directory = f"./{path}" if path.startswith("-") else path
    return f"kitcache {command} {shell_words(directory, *words)}"


def shell_words(*words: str) -> str:
    """Return the words as a shell reads them."""
    from shlex import quote  # noqa: PLC0415 - only a message needs it

    return " ".join(quote(printable(word)) for word in words)
