"""The reset step of action.yml: inputs from the environment, results to the workflow.

It reads kitcache's JSON, whose shapes are guaranteed, so any release works.
"""

import json
import os
import subprocess
import sys
from fnmatch import fnmatchcase
from typing import Any

KITCACHE = (sys.executable, "-P", "-m", "kitcache")
USAGE = 2
# The exit codes of kitcache that fail the step. USAGE always does.
FAILS = {"any": frozenset(range(1, 256)), "damage": frozenset((12, 13)), "none": frozenset[int]()}
_BOOLS = {"true": True, "false": False}

Answer = dict[str, Any]


def main() -> int:
    """Reset the caches that the inputs name; return the exit code of the step."""
    try:
        fails = FAILS[os.environ["KITCACHE_FAIL_ON"]] | {USAGE}
        is_dry = _BOOLS[os.environ["KITCACHE_DRY_RUN"]]
        is_confirmed = _BOOLS[os.environ["KITCACHE_CONFIRM"]]
    except KeyError as error:
        valid = f"{' '.join(FAILS)} (fail-on), true false (dry-run, confirm)"
        print_annotation("error", f"{error} is not one of: {valid}")
        return USAGE
    answers = [
        answer
        for directory in read_lines("KITCACHE_DIRECTORY")
        for answer in (
            *untag(directory, read_lines("KITCACHE_UNTAG"), is_dry),
            reset(directory, is_dry, is_confirmed),
        )
    ]
    for answer in answers:
        print_answer(answer, is_failure=answer["exit_code"] in fails)
    code = max(answer["exit_code"] for answer in answers)
    write_outputs(answers, code)
    return code if any(answer["exit_code"] in fails for answer in answers) else 0


def read_lines(name: str) -> list[str]:
    """Return the lines of an input that has one value per line."""
    return [line.strip() for line in os.environ[name].splitlines() if line.strip()]


def untag(directory: str, names: list[str], is_dry: bool) -> list[Answer]:
    """Remove the entries that exist; return the errors."""
    if not names:
        return []
    listing = ask("ls", "--json", "--", directory)
    if "tags" not in listing:
        return []  # The reset reports the same error.
    tags = {tag["ref_name"] for tag in listing["tags"] if tag["ref_name"]}
    valid = tags | {tag["digest"] for tag in listing["tags"]}
    present = [n for n in names if n in valid or any(fnmatchcase(tag, n) for tag in tags)]
    if not present:
        return []
    flags = ("--dry-run",) if is_dry else ()
    answer = ask("untag", "--json", *flags, "--", directory, *present)
    if answer["exit_code"]:
        return [answer]
    print(f"{listing['path']}: {'would untag' if is_dry else 'untagged'} {', '.join(present)}")
    return []


def reset(directory: str, is_dry: bool, is_confirmed: bool) -> Answer:
    """Return the result of the reset, or its error."""
    age = os.environ["KITCACHE_MIN_AGE"]
    flags = [
        *(("--min-age", age) if age else ()),
        *(("--dry-run",) if is_dry else ()),
        *(("--yes",) if is_confirmed else ()),
    ]
    return ask("reset", "--json", *flags, "--", directory)


def ask(*words: str) -> Answer:
    """Run kitcache and return the JSON object that it prints."""
    done = subprocess.run([*KITCACHE, *words], stdout=subprocess.PIPE, check=False)
    answer: Answer = json.loads(done.stdout)
    return answer


def print_answer(answer: Answer, *, is_failure: bool) -> None:
    """Print one line to the log and to the job's summary; a failure is an annotation too."""
    level = "error" if is_failure else "warning"
    path = answer["path"]
    if "deleted" in answer:
        verb = "would delete" if answer["outcome"] == "dry-run" else "deleted"
        line = (
            f"{verb} {format_tally(answer['deleted'])}; kept {format_tally(answer['kept'])},"
            f" for {answer['entry_count']} {'tag' if answer['entry_count'] == 1 else 'tags'}"
        )
        print(f"{path}: {line}")
        if answer["not_deleted_count"]:
            count = answer["not_deleted_count"]
            print_annotation(level, f"{path}: {count} files could not be deleted")
        if answer.get("requests") and answer["reason"]:
            print_annotation(level, f"{path}: {answer['reason']}; to confirm it: confirm: true")
    else:
        line = answer["message"].partition("\n")[0].removeprefix(f"{path}: ")
        print_annotation(level, answer["message"])
    with open(os.environ["GITHUB_STEP_SUMMARY"], "a", encoding="utf-8") as summary:
        print(f"**kitcache** {format_code(path)}: {line}\n", file=summary)


def format_tally(tally: dict[str, int]) -> str:
    """Return a text such as "3 blobs, 1.5 MB"."""
    blobs = "blob" if tally["blobs"] == 1 else "blobs"
    return f"{tally['blobs']:,} {blobs}, {format_size(tally['bytes'])}"


def format_size(count: float) -> str:
    """Return a size in powers of 1000, as kitcache prints it."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.3g} TB"


def format_code(text: str) -> str:
    """Return the text as code in the Markdown of the summary."""
    return f"<code>{text.replace('&', '&amp;').replace('<', '&lt;')}</code>"


def print_annotation(level: str, text: str) -> None:
    """Print an annotation of the step; newlines are escaped, because one would end it."""
    escaped = text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    print(f"::{level} title=kitcache::{escaped}")


def write_outputs(answers: list[Answer], code: int) -> None:
    """Write sums over all directories; a directory that could not be read counts nothing."""
    results = [answer for answer in answers if "deleted" in answer]
    with open(os.environ["GITHUB_OUTPUT"], "a", encoding="utf-8") as outputs:
        for key in ("deleted", "kept"):
            for unit in ("blobs", "bytes"):
                total = sum(result[key][unit] for result in results)
                print(f"{key}-{unit}={total}", file=outputs)
        print(f"exit-code={code}", file=outputs)


if __name__ == "__main__":
    sys.exit(main())
