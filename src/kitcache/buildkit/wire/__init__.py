"""Bytes to calls and back: HTTP/2, gRPC framing, and the threads that move them."""
