"""The options of `kitcache build`, and what to say of those that it does not have.

Names and meanings are those of `docker buildx build`, of buildctl where buildx has none. Source:
buildx commands/build.go and docs/reference/buildx_build.md.
"""

import argparse
import re
from collections.abc import Sequence
from typing import NoReturn

from kitcache.buildkit.request import NETWORKS
from kitcache.cli import options
from kitcache.options.attributes import parse_bool, quote_go, suggest

PROGRESS = ("auto", "plain", "tty", "rawjson", "quiet")
_SWITCHES = ("--no-cache", "--pull", "--load", "--push", "--quiet")

_DAEMON_LIMITS = "limit the daemon's containers in its own configuration"
_RUN_BUILDX = "run docker buildx build for it"
ELSEWHERE = {
    "--ssh": "give the build a token or a key with --secret",
    "--annotation": "use --output type=image,annotation.KEY=VALUE",
    "--call": _RUN_BUILDX,
    "--check": f"lint findings are at the end of every build; without a build, {_RUN_BUILDX}",
    "--print": _RUN_BUILDX,
    "--invoke": _RUN_BUILDX,
    "--debug": "--progress plain shows all that the daemon says",
    "--detach": "start it in the background with your shell",
    "--root": "there is no server beside the daemon",
    "--server-config": "there is no server beside the daemon",
    "--squash": "copy from a stage of its own: COPY --from=STAGE / /",
    "--compress": "a context is sent file by file, and only what has changed",
    "--security-opt": "use --allow security.insecure and RUN --security=insecure",
    "--cgroup-parent": _DAEMON_LIMITS,
    "--isolation": _DAEMON_LIMITS,
    "--memory": _DAEMON_LIMITS,
    "-m": _DAEMON_LIMITS,
    "--memory-swap": _DAEMON_LIMITS,
    "--cpu-shares": _DAEMON_LIMITS,
    "-c": _DAEMON_LIMITS,
    "--cpu-period": _DAEMON_LIMITS,
    "--cpu-quota": _DAEMON_LIMITS,
    "--cpuset-cpus": _DAEMON_LIMITS,
    "--cpuset-mems": _DAEMON_LIMITS,
    "--rm": "BuildKit leaves no containers behind",
    "--force-rm": "BuildKit leaves no containers behind",
    "--disable-content-trust": "BuildKit has no content trust",
}
"""Options of docker build and docker buildx build that are none here, and what to do instead."""

_DESCRIPTION = """\
Builds an image with BuildKit: with the docker engine's own, or with any
buildkitd. The options are those of docker buildx build. A cache directory can
be swept right after the export: --cache-to type=local,dest=DIR,reset=true
publishes the tag, then removes what no tag reaches."""

_EPILOG = """\
CONTEXT is a directory, a git or http URL that the daemon fetches, or - for a
tar (or a Dockerfile alone) on stdin.

examples:
  kitcache build -t app:1.2 .
  kitcache build --cache-from type=local,src=cache \\
      --cache-to type=local,dest=cache,mode=max,reset=true .
  kitcache build --prune-policy cache.toml \\
      --cache-to type=local,dest=cache,mode=max .
  kitcache build --push -t registry.example.com/app --platform \\
      linux/amd64,linux/arm64 https://github.com/me/app.git#main:docker
  kitcache build --secret id=token,env=API_TOKEN -o out .
  kitcache build --addr tcp://builder:1234 --tlsdir ~/certs -o - . | tar t
  tar c . | kitcache build -f docker/Dockerfile -"""

_Words = list[str]


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `kitcache build`."""
    parser.description, parser.epilog = _DESCRIPTION, _EPILOG
    parser.usage = "kitcache build [OPTIONS] CONTEXT"
    context = parser.add_argument("context", metavar="CONTEXT", nargs="?", help=argparse.SUPPRESS)
    options.complete_with(context, options.DIRECTORIES)
    _add_inputs(parser.add_argument_group("what to build"))
    _add_execution(parser.add_argument_group("how its steps run"))
    _add_results(parser.add_argument_group("where the result goes"))
    _add_caches(parser.add_argument_group("build cache"))
    _add_daemon(parser.add_argument_group("which daemon"))
    _add_display(parser.add_argument_group("what is shown"))
    options.add_lock_timeout(parser)
    parser.add_argument(
        *ELSEWHERE, action=_Elsewhere, nargs="?", default=argparse.SUPPRESS, help=argparse.SUPPRESS
    )

    def parse_all(args: Sequence[str], namespace: None = None) -> tuple[argparse.Namespace, _Words]:
        # argparse's own, for what is unknown is described here.
        parse = argparse.ArgumentParser.parse_known_args
        found, unknown = parse(parser, _unfold_switches(args), namespace)
        if unknown or found.context is None:
            parser.error(_describe(parser, found.context, unknown))
        return found, []

    parser.parse_known_args = parse_all  # type: ignore[method-assign,assignment]


class _Elsewhere(argparse.Action):
    """An option that docker buildx build has, and kitcache has not."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,  # noqa: ARG002
        values: object,  # noqa: ARG002
        option_string: str | None = None,
    ) -> NoReturn:
        word = option_string or ""
        parser.error(
            f"{word} is an option of docker buildx build that kitcache does not have:"
            f" {ELSEWHERE[word]}"
        )


def _unfold_switches(words: Sequence[str]) -> _Words:
    """The words with --pull=true as --pull, and without --pull=false: argparse knows neither."""
    unfolded = []
    for word in words:
        name, is_given, value = word.partition("=")
        if not is_given or name not in _SWITCHES:
            unfolded.append(word)
        elif parse_bool(value, f"invalid argument {quote_go(value)} for {quote_go(name)} flag"):
            unfolded.append(name)
    return unfolded


def _describe(parser: argparse.ArgumentParser, context: str | None, unknown: _Words) -> str:
    """What is wrong with a command line that has words too many, or no context."""
    for word in unknown:
        if word.startswith("-") and word != "-":
            name = word.partition("=")[0]
            helped = re.findall(r"(?<![\w-])--([a-z][a-z-]*)", parser.format_help())
            known = (*dict.fromkeys(helped), *(name.strip("-") for name in ELSEWHERE))
            meant = suggest(name.strip("-"), known)
            return f"unknown option {name}" + (f"; did you mean --{meant}?" if meant else "")
    if unknown:
        given = ", ".join(map(repr, (context, *unknown)))
        return f"one CONTEXT, please, not {1 + len(unknown)}: {given}"
    return "a CONTEXT is missing: a directory such as . (this one), a URL, or - for stdin"


def _add_inputs(group: argparse._ArgumentGroup) -> None:
    file = group.add_argument(
        "-f",
        "--file",
        metavar="PATH",
        help="the Dockerfile, - for stdin (default: Dockerfile in CONTEXT)",
    )
    options.complete_with(file, options.FILES)
    group.add_argument("--target", metavar="STAGE", default="", help="the stage to build")
    _add_list(group, "--platform", "LIST", "such as linux/amd64,linux/arm64", dest="platforms")
    _add_list(
        group,
        "--build-arg",
        "KEY[=VALUE]",
        "an ARG of the Dockerfile; without a value, from the environment",
    )
    _add_list(
        group,
        "--build-context",
        "NAME=PLACE",
        "what FROM NAME or --from=NAME means: DIR, URL, docker-image://IMAGE or"
        " oci-layout://DIR[:TAG|@DIGEST]",
    )
    _add_list(
        group,
        "--secret",
        "id=ID[,src=FILE|,env=VAR]",
        "for RUN --mount=type=secret; neither in the image nor in the cache",
    )
    group.add_argument(
        "--pull", action="store_true", help="ask registries for newer images, even if one is here"
    )


def _add_execution(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--no-cache", action="store_true", help="run every step anew")
    _add_list(group, "--no-cache-filter", "STAGES", "run the steps of these stages anew")
    group.add_argument(
        "--network",
        metavar="MODE",
        default="default",
        help=f"of RUN: {', '.join(NETWORKS)} (default: default); host needs the daemon's"
        " permission",
    )
    _add_list(group, "--add-host", "NAME:IP", "a line in /etc/hosts; IP may be host-gateway")
    _add_list(
        group,
        "--allow",
        "ENTITLEMENT",
        "network.host, security.insecure, device, buildx.local.delete",
    )
    group.add_argument("--shm-size", metavar="SIZE", help="of /dev/shm, such as 64m")
    _add_list(group, "--ulimit", "NAME=SOFT[:HARD]", "such as nofile=1024:2048")


def _add_results(group: argparse._ArgumentGroup) -> None:
    _add_list(group, "--tag", "NAME[:TAG]", "the image's name", short="-t")
    _add_list(
        group,
        "--output",
        "DEST",
        "DIR, - (a tar to stdout), or type=KIND[,dest=PATH][,k=v] with local, tar, oci, docker,"
        " image, registry, cacheonly",
        short="-o",
    )
    group.add_argument("--load", action="store_true", help="into the engine: --output type=docker")
    group.add_argument("--push", action="store_true", help="to a registry: --output type=registry")
    _add_list(group, "--label", "KEY=VALUE", "metadata of the image")
    group.add_argument(
        "--provenance", metavar="VALUE", help="attest how it was built: true, false, mode=max"
    )
    group.add_argument(
        "--sbom", metavar="VALUE", help="attest what is in it: true, generator=IMAGE"
    )
    _add_list(group, "--attest", "type=KIND[,k=v]", "the long form of the two")
    for name, what in (
        ("iidfile", "the image's digest"),
        ("metadata-file", "what came out, as JSON"),
    ):
        file = group.add_argument(f"--{name}", metavar="FILE", help=f"write {what} there")
        options.complete_with(file, options.FILES)


def _add_caches(group: argparse._ArgumentGroup) -> None:
    _add_list(
        group,
        "--cache-from",
        "SPEC",
        "type=local,src=DIR[,tag=TAG|,digest=DIGEST], type=registry,ref=NAME, gha, s3, azblob",
    )
    _add_list(
        group,
        "--cache-to",
        "SPEC",
        "type=local,dest=DIR[,tag=TAG][,mode=max][,reset=true], type=registry,ref=NAME, inline,"
        " gha, s3, azblob",
    )
    options.add_prune_policy(
        group,
        "drop tags from every local cache exported to, as this file says (see kitcache prune;"
        " - is stdin), and reset it",
        instead="run docker buildx build for it",
    )


def _add_daemon(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--addr",
        metavar="ADDRESS",
        help="unix://PATH, tcp://HOST:PORT or docker-container://NAME (default: BUILDKIT_HOST,"
        " BUILDX_BUILDER or the builder of docker buildx use, DOCKER_HOST, the docker context,"
        " then the usual sockets)",
    )
    group.add_argument("--builder", metavar="NAME", help="a builder of docker buildx")
    folder = group.add_argument(
        "--tlsdir", metavar="DIR", help="with ca.pem, cert.pem, key.pem or ca.crt, tls.crt, tls.key"
    )
    options.complete_with(folder, options.DIRECTORIES)
    for name, what in (
        ("tlscacert", "who signed the daemon's certificate"),
        ("tlscert", "our own certificate"),
        ("tlskey", "its key"),
    ):
        file = group.add_argument(f"--{name}", metavar="FILE", help=what)
        options.complete_with(file, options.FILES)
    group.add_argument("--tlsservername", metavar="NAME", help="in the daemon's certificate")


def _add_display(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--progress",
        choices=PROGRESS,
        metavar="MODE",
        help=f"{', '.join(PROGRESS)} (default: BUILDKIT_PROGRESS, else auto)",
    )
    group.add_argument(
        "-q", "--quiet", action="store_true", help="print nothing but the image's digest"
    )


def _add_list(
    group: argparse._ArgumentGroup,
    name: str,
    metavar: str,
    text: str,
    *,
    short: str | None = None,
    dest: str | None = None,
) -> None:
    """An option that may come several times."""
    names = (name,) if short is None else (short, name)
    group.add_argument(*names, metavar=metavar, action="append", default=[], help=text, dest=dest)
