"""What is wrong with a command line, said in kitcache's words: argparse has its own."""

import re
from collections.abc import Iterable, Sequence

from kitcache.options.attributes import suggest

_CHOICE = re.compile(r"(.*): invalid choice: (.*) \(choose from (.*)\)", re.DOTALL)
_MISSING = "the following arguments are required: "


def describe_error(message: str) -> str:
    """A message of argparse's, and which command was meant where it is none of ours."""
    if message.startswith(_MISSING):
        names = message.removeprefix(_MISSING)
        return f"{names} {'are' if ', ' in names else 'is'} missing"
    text = message.removeprefix("argument ")
    if found := _CHOICE.fullmatch(text):
        name, word, choices = found[1], found[2].strip("'\""), re.findall(r"[\w-]+", found[3])
        if name == "COMMAND":
            meant = suggest(word, (*choices, "--help", "--version"))
            return f"unknown command {word!r}" + _did_you_mean(meant)
        return f"{name}: {word!r} is none of {', '.join(choices)}"
    name, _, problem = text.partition(": ")
    name = name.rpartition("/")[2]  # -n/--dry-run
    if problem.startswith("expected "):
        return f"{name} needs a value"
    if problem.startswith("ignored explicit argument "):
        return f"{name} takes no value"
    return message


def describe_unknown(words: Sequence[str], known: Iterable[str]) -> str:
    """Words that a command does not take. known: its options, with their dashes."""
    for word in words:
        if word.startswith("-") and word != "-":
            name = word.partition("=")[0]
            return f"unknown option {name}" + _did_you_mean(_option_like(name, tuple(known)))
    many = "one word" if len(words) == 1 else f"{len(words)} words"
    return f"{many} too many: {', '.join(map(repr, words))}"


def _option_like(name: str, known: Sequence[str]) -> str | None:
    letters = name.strip("-")
    if len(letters) != 1:
        long = {option.strip("-"): option for option in known}
        return long.get(suggest(letters, long) or "")
    starting = [option for option in known if option.startswith(f"--{letters}")]
    return starting[0] if len(starting) == 1 else None


def _did_you_mean(word: str | None) -> str:
    return f"; did you mean {word}?" if word else ""
