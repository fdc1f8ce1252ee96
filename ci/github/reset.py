"""The reset step of action.yml: inputs from the environment, answers to the workflow.

It asks kitcache for JSON, whose shapes are a promise, so that any release will do.
"""

import json
import os
import subprocess
import sys
from fnmatch import fnmatchcase
from typing import Any

KITCACHE = (sys.executable, "-P", "-m", "kitcache")
USAGE = 2
# Which of kitcache's exit codes fail the step. Usage does in any case.
FAILS = {"any": frozenset(range(1, 256)), "damage": frozenset((12, 13)), "none": frozenset[int]()}

Answer = dict[str, Any]


def main() -> int:
    """Reset what the inputs name; the exit code of the step."""
    try:
        fails = FAILS[os.environ["KITCACHE_FAIL_ON"]] | {USAGE}
        is_dry = {"true": True, "false": False}[os.environ["KITCACHE_DRY_RUN"]]
    except KeyError as error:
        annotate("error", f"{error} is none of: {' '.join(FAILS)} (fail-on), true false (dry-run)")
        return USAGE
    answers = [
        answer
        for directory in lines_of("KITCACHE_DIRECTORY")
        for answer in (
            *untag(directory, lines_of("KITCACHE_UNTAG"), is_dry),
            reset(directory, is_dry),
        )
    ]
    for answer in answers:
        tell(answer, is_failure=answer["exit_code"] in fails)
    code = max(answer["exit_code"] for answer in answers)
    put_outputs(answers, code)
    return code if any(answer["exit_code"] in fails for answer in answers) else 0


def lines_of(name: str) -> list[str]:
    """The lines of an input that has one thing a line."""
    return [line.strip() for line in os.environ[name].splitlines() if line.strip()]


def untag(directory: str, names: list[str], is_dry: bool) -> list[Answer]:
    """Take those entries out that are there; errors only."""
    if not names:
        return []
    listing = ask("ls", "--json", "--", directory)
    if "tags" not in listing:
        return []  # the reset will say the same
    tags = {tag["ref_name"] for tag in listing["tags"] if tag["ref_name"]}
    there = tags | {tag["digest"] for tag in listing["tags"]}
    gone = [n for n in names if n in there or any(fnmatchcase(tag, n) for tag in tags)]
    if not gone:
        return []
    flags = ("--dry-run",) if is_dry else ()
    answer = ask("untag", "--json", *flags, "--", directory, *gone)
    if answer["exit_code"]:
        return [answer]
    print(f"{directory}: {'would untag' if is_dry else 'untagged'} {', '.join(gone)}")
    return []


def reset(directory: str, is_dry: bool) -> Answer:
    """The report, or the error."""
    age = os.environ["KITCACHE_MIN_AGE"]
    flags = [*(("--min-age", age) if age else ()), *(("--dry-run",) if is_dry else ())]
    return ask("reset", "--json", *flags, "--", directory)


def ask(*words: str) -> Answer:
    """The one JSON object that kitcache answers with."""
    done = subprocess.run([*KITCACHE, *words], stdout=subprocess.PIPE, check=False)
    answer: Answer = json.loads(done.stdout)
    return answer


def tell(answer: Answer, *, is_failure: bool) -> None:
    """A line in the log and in the job's summary; a failure is an annotation, too."""
    if "deleted" in answer:
        verb = "would delete" if answer["outcome"] == "dry-run" else "deleted"
        line = (
            f"{verb} {said(answer['deleted'])}; kept {said(answer['kept'])},"
            f" for {answer['entry_count']} {'tag' if answer['entry_count'] == 1 else 'tags'}"
        )
        print(f"{answer['path']}: {line}")
        if answer["not_deleted_count"]:
            problem = f"{answer['path']}: {answer['not_deleted_count']} files could not be deleted"
            annotate("error" if is_failure else "warning", problem)
    else:
        line = answer["message"].partition("\n")[0].removeprefix(f"{answer['path']}: ")
        annotate("error" if is_failure else "warning", answer["message"])
    with open(os.environ["GITHUB_STEP_SUMMARY"], "a", encoding="utf-8") as summary:
        print(f"**kitcache** {code_of(answer['path'])}: {line}\n", file=summary)


def said(tally: dict[str, int]) -> str:
    """3 blobs, 1.5 MB."""
    return (
        f"{tally['blobs']:,} {'blob' if tally['blobs'] == 1 else 'blobs'}, {size(tally['bytes'])}"
    )


def size(count: float) -> str:
    """In powers of 1000, as kitcache has it."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.3g} TB"


def code_of(text: str) -> str:
    """The text as code, in the summary's Markdown."""
    return f"<code>{text.replace('&', '&amp;').replace('<', '&lt;')}</code>"


def annotate(level: str, text: str) -> None:
    """A line that the workflow shows beside the step; its newlines do not end it."""
    escaped = text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    print(f"::{level} title=kitcache::{escaped}")


def put_outputs(answers: list[Answer], code: int) -> None:
    """Sums over all directories; what could not be looked into counts nothing."""
    reports = [answer for answer in answers if "deleted" in answer]
    with open(os.environ["GITHUB_OUTPUT"], "a", encoding="utf-8") as outputs:
        for what in ("deleted", "kept"):
            for unit in ("blobs", "bytes"):
                total = sum(report[what][unit] for report in reports)
                print(f"{what}-{unit}={total}", file=outputs)
        print(f"exit-code={code}", file=outputs)


if __name__ == "__main__":
    sys.exit(main())
