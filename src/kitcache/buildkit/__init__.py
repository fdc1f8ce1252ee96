"""A native BuildKit client: gRPC over HTTP/2, the session that serves the daemon, the solve."""
