"""The messages on the wire: our .proto files, and what scripts/generate_protos.py makes of them."""
