"""The cache directory: the only package that touches one."""
