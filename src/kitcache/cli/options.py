"""Arguments of commands: declared once for argparse, completion and the manual page.

The arguments that several commands share are declared here, so that they have one name, one
meaning and one help text.
"""

import argparse
import signal
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, NoReturn, TypeVar

from kitcache.errors import NOTHING_CHANGED, UsageError
from kitcache.options.units import AGE_FORMS, parse_age

if TYPE_CHECKING:  # seldom needed
    from kitcache.options.prunepolicy import PrunePolicy
    from kitcache.options.sweep import SweepOptions

Completes = Literal["words", "dirs", "files", "tags"]
T = TypeVar("T")

DEFAULT_INGEST_AGE_NS = 3600 * 10**9
DEFAULT_EXPORT_TIME_NS = 24 * 3600 * 10**9
REPAIR_POLICY = "correct the file: its keys are the options that kitcache prune --help lists"
STDIN = "-"
_SECOND_NS = 10**9


class Argument(NamedTuple):
    """An option, or a positional argument.

    Attributes:
        names: The spellings of an option; one word without dashes for a positional argument.
        help: Its text in --help; "" hides it there.
        completes: The kind of its values. `tags`: the tags of the cache named before it.
        group: The heading in --help, "" for the default heading.
        keywords: Further keywords of ArgumentParser.add_argument.
    """

    names: tuple[str, ...]
    help: str
    completes: Completes
    group: str
    keywords: dict[str, Any]

    @property
    def is_option(self) -> bool:
        """True for an option, False for a positional argument."""
        return self.names[0].startswith("-")

    @property
    def nargs(self) -> str | None:
        """The nargs of argparse."""
        return self.keywords.get("nargs")

    @property
    def repeats(self) -> bool:
        """True if the option can be given several times."""
        return self.keywords.get("action") == "append"

    @property
    def takes_value(self) -> bool:
        """True if a value has to follow the name of the option."""
        return self.nargs is None and self.keywords.get("action", "append") == "append"


class Command(NamedTuple):
    """The command line of a command.

    Attributes:
        usage: Words after the command in the usage line, "" for those that argparse lists.
        effect: The effect of errors about the command line; "" if the command only reads.
        signals: The signals that cancel the command.
        rewrite: Prepares the words for argparse.
    """

    description: str
    epilog: str
    arguments: tuple[Argument, ...]
    usage: str = ""
    effect: str = NOTHING_CHANGED
    signals: tuple[signal.Signals, ...] = (signal.SIGINT,)
    rewrite: Callable[[list[str]], list[str]] = list


def argument(
    names: str, metavar: str, text: str = "", *, completes: Completes = "words", **keywords: Any
) -> Argument:
    """Declare an argument.

    Args:
        names: The spellings of an option, separated by spaces; or a positional argument.
        keywords: As of ArgumentParser.add_argument.
    """
    if metavar:
        keywords["metavar"] = metavar
    return Argument(tuple(names.split()), text, completes, "", keywords)


def switch(names: str, text: str) -> Argument:
    """Declare an option without a value."""
    return argument(names, "", text, action="store_true")


def listed(names: str, metavar: str, text: str, **keywords: Any) -> Argument:
    """Declare an option that can be given several times."""
    return argument(names, metavar, text, action="append", default=[], **keywords)


def grouped(title: str, *arguments: Argument) -> tuple[Argument, ...]:
    """Put arguments under a heading of their own in --help."""
    return tuple(each._replace(group=title) for each in arguments)


def converter(parse: Callable[[str], T]) -> Callable[[str], T]:
    """Return a `type` for argparse that reports the message of `parse`'s ValueError."""

    def convert(text: str) -> T:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return convert


HELP = argument("-h --help", "", "show this help message and exit", action="help")
DIR = argument(
    "dir",
    "DIR",
    "the cache: a directory, or type=s3,… or type=azblob,… as --cache-to has it",
    completes="dirs",
)
DIRS = argument(
    "dirs",
    "DIR",
    "caches: directories, or type=s3,… or type=azblob,… as --cache-to has it; the exit code is"
    " the worst",
    nargs="+",
    completes="dirs",
)
EXPORT_TIME = argument(
    "--export-time",
    "AGE",
    "in an object store, the longest time of an export: blobs younger than touch_refresh and this"
    " together are kept (default: 24h)",
    type=converter(parse_age),
    default=DEFAULT_EXPORT_TIME_NS,
)
YES = switch(
    "--yes",
    "in an object store, also delete in the first run, and if far fewer blobs are live than in the"
    " last run; without it, such a run is a dry run",
)
SETTLE = switch(
    "--settle",
    "in an object store, wait for --export-time after the last deletion, and check the roots once"
    " more: a root that lacks a deleted blob is exit code 12",
)
SWEEP_AGES = (
    argument(
        "--min-age",
        "AGE",
        "keep unreachable blobs younger than this, and blobs of young manifests (default: 0; in an"
        " object store, touch_refresh and --export-time together)",
        type=converter(parse_age),
        default=0,
    ),
    argument(
        "--ingest-age",
        "AGE",
        "delete an upload without a write for this long; a write in the last minute always"
        " means that an export runs (default: 1h)",
        type=converter(parse_age),
        default=DEFAULT_INGEST_AGE_NS,
    ),
    EXPORT_TIME,
    YES,
    SETTLE,
)
DRY_RUN = switch("-n --dry-run", "print what would be done, change nothing, acquire no lock")
LOCK_TIMEOUT = argument(
    "--lock-timeout",
    "AGE",
    "how long to wait for other processes to release a lock (default: 30s); an AGE: " + AGE_FORMS,
    dest="lock_timeout_s",
    type=converter(lambda text: parse_age(text, ("s", "m")) / _SECOND_NS),
    default=30.0,
)
# All commands but build share this text. build has the text of docker build.
QUIET = switch("-q --quiet", "print only warnings and errors")
JSON = switch("--json", "print one JSON object per DIR, errors too")
CHANGES = (DRY_RUN, LOCK_TIMEOUT, JSON, QUIET)


class _Refuse(argparse.Action):
    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,  # noqa: ARG002
        values: object,  # noqa: ARG002
        option_string: str | None = None,
    ) -> NoReturn:
        parser.error(self.const[option_string])


def refused(messages: Mapping[str, str]) -> Argument:
    """Declare options that kitcache does not have; each is refused with its message."""
    names = " ".join(messages)
    return argument(names, "", action=_Refuse, nargs="?", const=messages, default=argparse.SUPPRESS)


def policy_file(name: str, text: str) -> Argument:
    """Declare the option that names a policy file, as `args.policy`; "-" is stdin."""
    return argument(name, "FILE", text, dest="policy", completes="files")


def refused_policy(instead: str) -> Argument:
    """Declare --policy of docker buildx build, a Rego source policy; `instead` is the advice."""
    message = (
        "--policy is docker buildx build's option for Rego source policies, which kitcache does not"
        f" evaluate: {instead}. To remove tags from a cache, write --prune-policy FILE"
    )
    return refused({"--policy": message})


def check_stdin(args: argparse.Namespace, reader: str) -> None:
    """Raise UsageError if the policy comes from stdin, which `reader` reads too."""
    if args.policy == STDIN:
        raise UsageError(
            f"--prune-policy - and {reader} would both read stdin",
            hints=("write the policy to a file, and name that",),
        )


def read_policy_of(args: argparse.Namespace) -> "PrunePolicy | None":
    """Return the policy in the file that `args.policy` names. Raises UsageError, KitcacheError."""
    if args.policy is None:
        return None
    from kitcache.cli.policyfile import read_file  # noqa: PLC0415 - only a file needs TOML

    try:
        return read_file(args.policy, args.cancel)
    except UsageError as error:
        error.hints = error.hints or (REPAIR_POLICY,)
        raise


def sweep_options(args: argparse.Namespace) -> "SweepOptions":
    """Return the options of a sweep that a command line has, with defaults for the others."""
    from kitcache.options.sweep import SweepOptions  # noqa: PLC0415 - few commands sweep

    names = {
        "min_age": "min_age_ns",
        "ingest_age": "ingest_age_ns",
        "export_time": "export_time_ns",
        "yes": "confirmed",
        "settle": "settles",
    }
    given = {field: getattr(args, name) for name, field in names.items() if hasattr(args, name)}
    return SweepOptions(**given)
