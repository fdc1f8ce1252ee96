"""The command line of `kitcache build` as values.

Source: buildx commands/build.go.
"""

import argparse
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from kitcache.buildkit.daemon.address import Address, find_daemon
from kitcache.buildkit.daemon.tlsconfig import TlsConfig, check_key_pair, tls_from_directory
from kitcache.buildkit.inputs import parse_build_context
from kitcache.buildkit.request import check_request
from kitcache.cli.hints import name_options
from kitcache.errors import KitcacheError, UsageError
from kitcache.options.attests import parse_attests, spell_attest
from kitcache.options.attributes import Pairs, split_fields
from kitcache.options.build import BuildRequest
from kitcache.options.caches import parse_cache_export, parse_cache_import
from kitcache.options.imagenames import normalize_tag
from kitcache.options.outputs import Output, parse_output
from kitcache.options.secrets import Secret, parse_secret
from kitcache.options.ulimits import parse_memory, parse_ulimit

_EPOCH = "SOURCE_DATE_EPOCH"
_T = TypeVar("_T")
_FORMS = {
    "--cache-to": "type=local,dest=DIR",
    "--cache-from": "type=local,src=DIR",
    "--output": "type=local,dest=DIR",
    "--attest": "type=provenance or type=sbom",
    "--provenance": "true, false or mode=max",
    "--sbom": "true, false or generator=IMAGE",
}


def make_request(args: argparse.Namespace, environ: Mapping[str, str]) -> BuildRequest:
    """Return the command line as one checked value.

    Args:
        environ: For build arguments without a value, secrets, SOURCE_DATE_EPOCH,
            DOCKER_DEFAULT_PLATFORM, and the credentials of GitHub's and Amazon's caches.

    Raises:
        UsageError: An option is wrong; the message names it.
    """
    secrets = _each("--secret", args.secret, lambda text: parse_secret(text, environ))
    request = BuildRequest(
        context=args.context,
        dockerfile=args.file,
        target=args.target,
        build_args=_build_args(args.build_arg, environ),
        labels=_each("--label", args.label, _pair),
        platforms=_platforms(args.platforms, environ),
        no_cache=args.no_cache,
        no_cache_filter=tuple(args.no_cache_filter),
        pull=args.pull,
        build_contexts=_each("--build-context", args.build_context, parse_build_context),
        add_hosts=_split("--add-host", args.add_host),
        network=args.network,
        secrets=secrets,
        tags=_each("--tag", args.tag, normalize_tag),
        outputs=_outputs(args),
        cache_to=_each("--cache-to", args.cache_to, parse_cache_export),
        cache_from=_each("--cache-from", args.cache_from, parse_cache_import),
        attests=_attests(args),
        allow=_split("--allow", args.allow),
        shm_size=_each("--shm-size", [args.shm_size or "0"], parse_memory)[0],
        ulimits=_each("--ulimit", args.ulimit, parse_ulimit),
        warnings=tuple(_warn_secrets(secrets)),
    )
    return check_request(request, environ).request


def find_address(args: argparse.Namespace, environ: Mapping[str, str]) -> Address:
    """Return the address of the daemon. Raises UsageError, NoDaemon; they name the options."""
    try:
        address = find_daemon(environ, addr=args.addr, builder=args.builder, tls=find_tls(args))
    except KitcacheError as error:
        error.path = name_options(error.path)
        raise
    return address._replace(origin=name_options(address.origin))


def find_tls(args: argparse.Namespace) -> TlsConfig | None:
    """Return the certificates of the command line, or None. Raises UsageError."""
    directory = tls_from_directory(args.tlsdir) if args.tlsdir else TlsConfig()
    config = TlsConfig(
        args.tlscacert or directory.ca,
        args.tlscert or directory.cert,
        args.tlskey or directory.key,
        args.tlsservername,
    )
    return check_key_pair(config) if any(config[:4]) else None


def _each(flag: str, texts: Iterable[str], parse: Callable[[str], _T]) -> tuple[_T, ...]:
    """Parse each text. Raises UsageError that names the option."""
    try:
        return tuple(parse(text) for text in texts)
    except UsageError as error:
        raise _of_option(flag, error) from None


def _of_option(flag: str, error: UsageError) -> UsageError:
    """Return the error with the name of its option, and a hint if it has none."""
    step = "kitcache build --help"
    if flag in _FORMS and error.problem.startswith("invalid value "):
        step = f"write {_FORMS[flag]}"
    return UsageError(f"{flag}: {error.problem}", hints=error.hints or (step,))


def _split(flag: str, texts: Sequence[str]) -> tuple[str, ...]:
    """Return the parts of comma-separated lists."""
    return tuple(part for parts in _each(flag, filter(None, texts), split_fields) for part in parts)


def _pair(text: str) -> tuple[str, str]:
    key, _, value = text.partition("=")
    if not key:
        raise UsageError(f"{text!r} has no key", hints=("write KEY=VALUE",))
    return key, value


def _build_args(texts: Sequence[str], environ: Mapping[str, str]) -> Pairs:
    """Return the build arguments. An argument without a value gets that of the environment."""
    values = {}
    for text, (key, value) in zip(texts, _each("--build-arg", texts, _pair), strict=True):
        if "=" in text:
            values[key] = value
        elif key in environ:
            values[key] = environ[key]
    if epoch := environ.get(_EPOCH):
        values.setdefault(_EPOCH, epoch)
    return tuple(values.items())


def _platforms(texts: Sequence[str], environ: Mapping[str, str]) -> tuple[str, ...]:
    lists = texts or [environ.get("DOCKER_DEFAULT_PLATFORM", "")]
    parts = (part.strip() for text in lists for part in text.split(","))
    platforms = tuple(dict.fromkeys(filter(None, parts)))
    if "local" in platforms:
        raise UsageError(
            "--platform: local is not a platform of the daemon",
            hints=("leave --platform out to build for the daemon's own platform",),
        )
    return platforms


def _outputs(args: argparse.Namespace) -> tuple[Output, ...]:
    """Return the outputs, with those of --push and --load. Source: buildx commands/build.go."""
    outputs = list(_each("--output", filter(None, args.output), parse_output))
    if args.push:
        images = [at for at, output in enumerate(outputs) if output.kind == "image"]
        for at in images:
            attrs = {**dict(outputs[at].attrs), "push": "true"}
            outputs[at] = outputs[at]._replace(attrs=tuple(attrs.items()))
        if not images and not any(output.kind == "registry" for output in outputs):
            outputs.append(Output("registry"))
    if args.load and Output("docker") not in [output._replace(attrs=()) for output in outputs]:
        outputs.append(Output("docker"))
    return tuple(outputs)


def _attests(args: argparse.Namespace) -> Pairs:
    texts = list(args.attest)
    for kind, value in (("provenance", args.provenance), ("sbom", args.sbom)):
        if value:
            texts.append(spell_attest(kind, value))
            _each(f"--{kind}", texts[-1:], lambda text: parse_attests([text]))
    try:
        return parse_attests(texts)
    except UsageError as error:
        raise _of_option("--attest", error) from None


def _warn_secrets(secrets: Iterable[Secret]) -> Iterable[str]:
    return (
        f"secret {secret.id} is empty: its environment variable is not set, or holds nothing"
        for secret in secrets
        if secret.data == b""
    )
