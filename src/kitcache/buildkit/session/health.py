"""The health check of the session. The daemon makes it every 5 s and ends a session that fails it.

Source: grpc's health checking protocol; moby/buildkit, session/grpc.go.
"""

from kitcache.buildkit.proto.session_pb2 import HealthResponse
from kitcache.buildkit.session.unary import unary_handler
from kitcache.buildkit.wire.rpc import Handler

CHECK = "/grpc.health.v1.Health/Check"

_SERVING = 1


def health_handlers() -> dict[str, Handler]:
    """Return a handler that reports every service as serving."""
    serving = HealthResponse(status=_SERVING).SerializeToString()
    return {CHECK: unary_handler(lambda _: serving)}
