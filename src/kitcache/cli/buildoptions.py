"""The options of `kitcache build`, and advice for those of buildx that it does not have.

Names and meanings are those of `docker buildx build`, of buildctl where buildx has none. Source:
buildx commands/build.go and docs/reference/buildx_build.md.
"""

import signal

from kitcache.buildkit.request import NETWORKS
from kitcache.cli import options
from kitcache.cli.display import MODES
from kitcache.cli.options import argument, grouped, listed, switch
from kitcache.options.attributes import parse_bool, quote_go

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
    "--debug": "--progress plain shows all output of the daemon",
    "--detach": "start it in the background with your shell",
    "--root": "there is no server but the daemon",
    "--server-config": "there is no server but the daemon",
    "--squash": "copy from a stage: COPY --from=STAGE / /",
    "--compress": "a context is sent file by file, and only files that have changed",
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
"""Options of docker build and docker buildx build that kitcache does not have, with advice."""

_DESCRIPTION = """\
Builds an image with BuildKit: with that of a Docker Engine, or with any
buildkitd. The options are those of docker buildx build. A cache directory can
be swept right after the export: --cache-to type=local,dest=DIR,reset=true
publishes the tag, then deletes every blob that no tag reaches."""

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


def _unfold_switches(words: list[str]) -> list[str]:
    """Return the words with --pull for --pull=true and without --pull=false, as docker has them."""
    unfolded = []
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or name not in _SWITCHES:
            unfolded.append(word)
        elif parse_bool(value, f"invalid argument {quote_go(value)} for {quote_go(name)} flag"):
            unfolded.append(name)
    return unfolded


COMMAND = options.Command(
    description=_DESCRIPTION,
    epilog=_EPILOG,
    usage="[OPTIONS] CONTEXT",
    effect="nothing was built",
    signals=(signal.SIGINT, signal.SIGTERM),
    rewrite=_unfold_switches,
    arguments=(
        argument("context", "CONTEXT", nargs="?", completes="dirs"),
        options.LOCK_TIMEOUT,
        *grouped(
            "input",
            argument(
                "-f --file",
                "PATH",
                "the Dockerfile, - for stdin (default: Dockerfile in CONTEXT)",
                completes="files",
            ),
            argument("--target", "STAGE", "the stage to build", default=""),
            listed("--platform", "LIST", "such as linux/amd64,linux/arm64", dest="platforms"),
            listed(
                "--build-arg",
                "KEY[=VALUE]",
                "an ARG of the Dockerfile; without a value, from the environment",
            ),
            listed(
                "--build-context",
                "NAME=PLACE",
                "the source for FROM NAME or --from=NAME: DIR, URL, docker-image://IMAGE or"
                " oci-layout://DIR[:TAG|@DIGEST]",
            ),
            listed(
                "--secret",
                "id=ID[,src=FILE|,env=VAR]",
                "for RUN --mount=type=secret; neither in the image nor in the cache",
            ),
            switch("--pull", "ask registries for newer images, even if one is here"),
        ),
        *grouped(
            "steps",
            switch("--no-cache", "run every step again"),
            listed("--no-cache-filter", "STAGES", "run the steps of these stages again"),
            argument(
                "--network",
                "MODE",
                f"of RUN: {', '.join(NETWORKS)} (default: default); host needs the daemon's"
                " permission",
                default="default",
            ),
            listed("--add-host", "NAME:IP", "a line in /etc/hosts; IP may be host-gateway"),
            listed(
                "--allow",
                "ENTITLEMENT",
                "network.host, security.insecure, device, buildx.local.delete",
            ),
            argument("--shm-size", "SIZE", "of /dev/shm, such as 64m"),
            listed("--ulimit", "NAME=SOFT[:HARD]", "such as nofile=1024:2048"),
        ),
        *grouped(
            "output",
            listed("-t --tag", "NAME[:TAG]", "the image's name"),
            listed(
                "-o --output",
                "DEST",
                "DIR, - (a tar to stdout), or type=KIND[,dest=PATH][,k=v] with local, tar, oci,"
                " docker, image, registry, cacheonly",
            ),
            switch("--load", "into the engine: --output type=docker"),
            switch("--push", "to a registry: --output type=registry"),
            listed("--label", "KEY=VALUE", "metadata of the image"),
            argument("--provenance", "VALUE", "attest how it was built: true, false, mode=max"),
            argument("--sbom", "VALUE", "attest its packages: true, generator=IMAGE"),
            listed("--attest", "type=KIND[,k=v]", "the long form of --provenance and --sbom"),
            argument("--iidfile", "FILE", "write the image's digest there", completes="files"),
            argument(
                "--metadata-file", "FILE", "write the results there, as JSON", completes="files"
            ),
        ),
        *grouped(
            "build cache",
            listed(
                "--cache-from",
                "SPEC",
                "type=local,src=DIR[,tag=TAG|,digest=DIGEST], type=registry,ref=NAME, gha, s3,"
                " azblob",
            ),
            listed(
                "--cache-to",
                "SPEC",
                "type=local,dest=DIR[,tag=TAG][,mode=max][,reset=true], type=registry,ref=NAME,"
                " inline, gha, s3, azblob",
            ),
            options.policy_file(
                "--prune-policy",
                "remove tags from every local cache exported to, as this file says (see kitcache"
                " prune; - is stdin), and reset it",
            ),
            options.refused_policy("run docker buildx build for it"),
        ),
        *grouped(
            "daemon",
            argument(
                "--addr",
                "ADDRESS",
                "unix://PATH, tcp://HOST:PORT or docker-container://NAME (default: BUILDKIT_HOST,"
                " BUILDX_BUILDER or the builder of docker buildx use, DOCKER_HOST, the docker"
                " context, then the usual sockets)",
            ),
            argument("--builder", "NAME", "a builder of docker buildx"),
            argument(
                "--tlsdir",
                "DIR",
                "with ca.pem, cert.pem, key.pem or ca.crt, tls.crt, tls.key",
                completes="dirs",
            ),
            *(
                argument(f"--{name}", "FILE", text, completes="files")
                for name, text in (
                    ("tlscacert", "the certificate that signed the daemon's"),
                    ("tlscert", "the client's certificate"),
                    ("tlskey", "its key"),
                )
            ),
            argument("--tlsservername", "NAME", "in the daemon's certificate"),
        ),
        *grouped(
            "display",
            argument(
                "--progress",
                "MODE",
                f"{', '.join(MODES)} (default: BUILDKIT_PROGRESS, else auto)",
                choices=MODES,
            ),
            switch("-q --quiet", "print only the image's digest"),
        ),
        options.refused(
            {
                name: f"{name} is an option of docker buildx build that kitcache does not have:"
                f" {advice}"
                for name, advice in ELSEWHERE.items()
            }
        ),
    ),
)
