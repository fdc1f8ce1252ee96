"""The OCI image format as values: bytes in, values out. No I/O."""
