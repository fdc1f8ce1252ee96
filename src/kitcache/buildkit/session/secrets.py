"""The secrets that a build named, given to the daemon when a step asks for one.

Source: moby/buildkit, session/secrets/secretsprovider (limit, status of a missing one).
"""

from collections.abc import Mapping

from kitcache.buildkit.log import LOG
from kitcache.buildkit.proto.session_pb2 import GetSecretRequest, GetSecretResponse
from kitcache.buildkit.session.unary import unary_handler
from kitcache.buildkit.wire.grpc import Code, RpcError
from kitcache.buildkit.wire.rpc import Handler
from kitcache.options.secrets import Secret
from kitcache.store.userfiles import read_regular

GET_SECRET = "/moby.buildkit.secrets.v1.Secrets/GetSecret"  # noqa: S105 - a method's name
MOST_BYTES = 500 * 1024


def secret_handlers(secrets: tuple[Secret, ...]) -> dict[str, Handler]:
    """Gives these and no other; of two with one id the later counts, as in buildx.

    Files are read when they are asked for. A secret that was not named is NOT_FOUND, which a step
    may tolerate; one that was named and cannot be read fails the step.
    """
    named = {secret.id: secret for secret in secrets}

    def answer(request: bytes) -> bytes:
        asked = GetSecretRequest.FromString(request).id
        return GetSecretResponse(data=_read(named, asked)).SerializeToString()

    return {GET_SECRET: unary_handler(answer)}


def _read(named: Mapping[str, Secret], asked: str) -> bytes:
    secret = named.get(asked)
    if secret is None:
        raise RpcError(Code.NOT_FOUND, f"secret {asked}: not found")
    data = (secret.data or b"") if secret.path is None else _read_file(secret.id, secret.path)
    if len(data) > MOST_BYTES:
        raise RpcError(
            Code.FAILED_PRECONDITION, f"secret {asked}: larger than {MOST_BYTES:,} bytes"
        )
    LOG.debug("secret %s: sent", asked)
    return data


def _read_file(name: str, path: str) -> bytes:
    try:
        return read_regular(path, MOST_BYTES)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "no such path"
        # From None: the daemon gets the reason, and nobody gets more.
        raise RpcError(
            Code.FAILED_PRECONDITION, f"secret {name}: cannot be read: {reason}"
        ) from None
