"""Arguments that several commands share: said once, named and explained alike."""

import argparse
from typing import TYPE_CHECKING, NoReturn

from kitcache.errors import UsageError
from kitcache.options.units import AGE_FORMS, parse_age, parse_bytes

if TYPE_CHECKING:  # seldom needed
    from kitcache.options.prunepolicy import PrunePolicy

DIRECTORIES, FILES, TAGS = "dirs", "files", "tags"

MEND_POLICY = "mend the file: its keys are the options that kitcache prune --help lists"


def complete_with(argument: argparse.Action, kind: str) -> None:
    """Say what completes an argument: directories, files, or the tags of the cache before it."""
    argument.complete = kind  # type: ignore[attr-defined]


def age(text: str) -> int:
    """An AGE argument in nanoseconds."""
    try:
        return parse_age(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def size(text: str) -> int:
    """A SIZE argument in bytes."""
    try:
        return parse_bytes(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def add_dirs(parser: argparse.ArgumentParser) -> None:
    """DIR…, each judged on its own."""
    argument = parser.add_argument(
        "dirs", metavar="DIR", nargs="+", help="cache directories; the exit code is the worst"
    )
    complete_with(argument, DIRECTORIES)


def add_dir(parser: argparse.ArgumentParser) -> None:
    """DIR."""
    argument = parser.add_argument("dir", metavar="DIR", help="the cache directory")
    complete_with(argument, DIRECTORIES)


def add_ages(parser: argparse.ArgumentParser) -> None:
    """--min-age and --ingest-age: what a sweep spares."""
    from kitcache.options.sweep import SweepOptions  # noqa: PLC0415 - only those who sweep need it

    parser.add_argument(
        "--min-age",
        metavar="AGE",
        type=age,
        default=0,
        help="keep garbage younger than this, and what young manifests reach (default: 0)",
    )
    parser.add_argument(
        "--ingest-age",
        metavar="AGE",
        type=age,
        default=SweepOptions().ingest_age_ns,
        help="delete an upload without a write for this long; a write in the last minute always"
        " means that an export runs (default: 1h)",
    )


def add_policy(
    parser: argparse.ArgumentParser | argparse._ArgumentGroup, text: str, name: str = "--policy"
) -> None:
    """--policy FILE, as `args.policy`; "-" is stdin."""
    file = parser.add_argument(name, metavar="FILE", dest="policy", help=text)
    complete_with(file, FILES)


def add_prune_policy(
    parser: argparse.ArgumentParser | argparse._ArgumentGroup, text: str, *, instead: str
) -> None:
    """--prune-policy FILE, as `args.policy`, and the refusal of --policy, which is buildx's.

    instead: what to do for a Rego source policy, which is what --policy means there.
    """
    add_policy(parser, text, "--prune-policy")
    parser.add_argument(
        "--policy",
        action=_RegoPolicy,
        nargs="?",
        const=instead,
        default=argparse.SUPPRESS,
        help=argparse.SUPPRESS,
    )


class _RegoPolicy(argparse.Action):
    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,  # noqa: ARG002
        values: object,  # noqa: ARG002
        option_string: str | None = None,  # noqa: ARG002
    ) -> NoReturn:
        parser.error(
            "--policy is docker buildx build's option for Rego source policies, which kitcache does"
            f" not evaluate: {self.const}. To drop tags from a cache, write --prune-policy FILE"
        )


def read_policy_of(args: argparse.Namespace) -> "PrunePolicy | None":
    """Return the policy that `args.policy` names, or None. Raises UsageError, KitcacheError."""
    if args.policy is None:
        return None
    from kitcache.cli.policyfile import read_file  # noqa: PLC0415 - only a file needs TOML

    try:
        return read_file(args.policy, args.cancel)
    except UsageError as error:
        error.hints = error.hints or (MEND_POLICY,)
        raise


def add_dry_run(
    parser: argparse.ArgumentParser,
    text: str = "say what would be done, change nothing, take no lock",
) -> None:
    """--dry-run, by default with what every command but a few says of it."""
    parser.add_argument("-n", "--dry-run", action="store_true", help=text)


def add_lock_timeout(parser: argparse.ArgumentParser) -> None:
    """--lock-timeout."""
    parser.add_argument(
        "--lock-timeout",
        metavar="AGE",
        type=age,
        default=30 * 10**9,
        help=f"how long to wait for others to release a lock (default: 30s); an AGE: {AGE_FORMS}",
    )


def add_output(parser: argparse.ArgumentParser) -> None:
    """--json and --quiet."""
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object per DIR, errors too"
    )
    add_quiet(parser)


def add_quiet(parser: argparse.ArgumentParser) -> None:
    """--quiet, as every command but build has it: there the words of docker's own build count."""
    parser.add_argument("-q", "--quiet", action="store_true", help="print only warnings and errors")
