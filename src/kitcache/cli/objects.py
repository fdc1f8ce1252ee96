"""Warnings about the address of a cache in an object store."""

from collections.abc import Iterator

from kitcache.options.objectcaches import ObjectCache, secrets_of

_INSTEAD = {
    "s3": "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "azblob": "install azure-identity, and log in with az login or set AZURE_CLIENT_ID",
}


def secret_warnings(cache: ObjectCache) -> Iterator[str]:
    """Yield a warning for secrets that the command line has."""
    names = secrets_of(cache)
    if names:
        verb = "is" if len(names) == 1 else "are"
        yield (
            f"{' and '.join(names)} {verb} on the command line, where other users of this machine"
            f" can read {'it' if len(names) == 1 else 'them'}; instead, {_INSTEAD[cache.kind]}"
        )
