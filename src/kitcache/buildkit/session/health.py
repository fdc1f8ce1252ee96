"""The daemon's question whether the session is alive: it drops one that does not answer.

Source: grpc's health checking protocol; moby/buildkit, session/grpc.go (every 5 s).
"""

from kitcache.buildkit.proto.session_pb2 import HealthResponse
from kitcache.buildkit.session.unary import unary_handler
from kitcache.buildkit.wire.rpc import Handler

CHECK = "/grpc.health.v1.Health/Check"

_SERVING = 1


def health_handlers() -> dict[str, Handler]:
    """Answers that all is well, whatever service is asked for."""
    serving = HealthResponse(status=_SERVING).SerializeToString()
    return {CHECK: unary_handler(lambda _: serving)}
