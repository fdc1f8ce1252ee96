"""Sends the secrets of a build to the daemon when a step requests one.

Source: moby/buildkit, session/secrets/secretsprovider (limit, status of a missing one).
"""

from kitcache.buildkit.log import LOG
from kitcache.buildkit.proto.session_pb2 import GetSecretRequest, GetSecretResponse
from kitcache.buildkit.session.unary import unary_handler
from kitcache.buildkit.wire.grpc import Code, RpcError
from kitcache.buildkit.wire.rpc import Handler
from kitcache.options.secrets import Secret
from kitcache.store.userfiles import read_regular

GET_SECRET = "/moby.buildkit.secrets.v1.Secrets/GetSecret"  # noqa: S105 - a method's name
MAX_SECRET_BYTES = 500 * 1024


def secret_handlers(secrets: tuple[Secret, ...]) -> dict[str, Handler]:
    """Return the handler that sends these secrets; of two with one id the last counts.

    A file is read when it is requested. An unknown secret is NOT_FOUND, which a step can tolerate;
    a secret that cannot be read fails the step.
    """
    by_id = {secret.id: secret for secret in secrets}

    def answer(request: bytes) -> bytes:
        name = GetSecretRequest.FromString(request).id
        if name not in by_id:
            raise RpcError(Code.NOT_FOUND, f"secret {name}: not found")
        data = _read(by_id[name])
        LOG.debug("secret %s: sent", name)
        return GetSecretResponse(data=data).SerializeToString()

    return {GET_SECRET: unary_handler(answer)}


def _read(secret: Secret) -> bytes:
    try:
        data = secret.data or b""
        if secret.path is not None:
            data = read_regular(secret.path, MAX_SECRET_BYTES)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "no such path"
        problem = f"secret {secret.id}: cannot be read: {reason}"
    else:
        if len(data) <= MAX_SECRET_BYTES:
            return data
        problem = f"secret {secret.id}: larger than {MAX_SECRET_BYTES:,} bytes"
    # Outside of the except block, so that no traceback shows the path.
    raise RpcError(Code.FAILED_PRECONDITION, problem)
