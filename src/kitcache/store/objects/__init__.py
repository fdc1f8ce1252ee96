"""Caches in object stores: Amazon S3 and compatible servers, and Azure Blob Storage."""
