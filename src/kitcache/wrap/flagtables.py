"""The options of docker 20 to 29, buildx 0.13 to 0.35, compose 2 and buildctl 0.31.

Sources: the clients' own --help, buildx commands/build.go and commands/bake.go, docker cli
cli/flags, compose cmd/compose, buildkit cmd/buildctl.
"""

from kitcache.wrap.flags import FlagTable


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_GLOBAL_VALUES = "config context host log-level tlscacert tlscert tlskey"
_GLOBAL_FLAGS = "debug help tls tlsverify version"

DOCKER = FlagTable(_words(_GLOBAL_VALUES), _words(_GLOBAL_FLAGS), "cHl", "Dv")

BUILDX = FlagTable(_words(f"{_GLOBAL_VALUES} builder"), _words(_GLOBAL_FLAGS), "cHl", "Dv")

BUILD = FlagTable(
    _words(
        "add-host allow annotation attest build-arg build-context builder cache-from cache-to call"
        " cgroup-parent cpu-period cpu-quota cpu-shares cpuset-cpus cpuset-mems file iidfile"
        " invoke isolation label memory memory-swap metadata-file network no-cache-filter on"
        " output platform policy print progress provenance ref root sbom secret security-opt"
        " server-config shm-size ssh tag target ulimit"
    ),
    _words(
        "check compress debug detach disable-content-trust force-rm help load no-cache pull push"
        " quiet rm squash"
    ),
    "cfmot",
    "Dhq",
)

BAKE = FlagTable(
    _words("allow builder call file list metadata-file progress provenance sbom set var"),
    _words("check debug help list-targets list-variables load no-cache print pull push"),
    "f",
    "Dh",
)

COMPOSE = FlagTable(
    _words("ansi env-file file parallel profile progress project-directory project-name"),
    _words("all-resources compatibility debug dry-run help insecure-registry no-ansi verbose"
           " version"),
    "fp",
    "Dhv",
)  # fmt: skip

COMPOSE_BUILD = FlagTable(
    _words("build-arg builder memory progress provenance sbom ssh"),
    _words("check compress dry-run force-rm help no-cache no-rm parallel print pull push quiet"
           " with-dependencies"),
    "m",
    "q",
)  # fmt: skip

COMPOSE_UP = FlagTable(
    _words("attach exit-code-from no-attach pull scale timeout wait-timeout"),
    _words("abort-on-container-exit abort-on-container-failure always-recreate-deps"
           " attach-dependencies build detach dry-run force-recreate help menu no-build no-color"
           " no-deps no-log-prefix no-recreate no-start quiet-build quiet-pull remove-orphans"
           " renew-anon-volumes timestamps wait watch yes"),
    "t",
    "dVwy",
)  # fmt: skip

COMPOSE_RUN = FlagTable(
    _words("cap-add cap-drop entrypoint env env-from-file label name publish pull user volume"
           " workdir"),
    _words("build detach dry-run help interactive no-deps no-TTY quiet quiet-build quiet-pull"
           " remove-orphans rm service-ports tty use-aliases"),
    "elpuvw",
    "diPqtT",
)  # fmt: skip

BUILDCTL = FlagTable(
    _words("addr log-format log-level timeout tlscacert tlscert tlsdir tlskey tlsservername wait"),
    _words("debug help version"),
    "",
    "hv",
    is_go=True,
)

BUILDCTL_BUILD = FlagTable(
    _words(
        "allow build-arg debug-json-cache-metrics exporter exporter-opt export-cache"
        " export-cache-opt frontend frontend-opt import-cache label local metadata-file oci-layout"
        " opt output progress ref-file registry-auth-tlscontext secret source-policy-file ssh trace"
    ),
    _words("help no-cache"),
    "o",
    "h",
    is_go=True,
)
