"""Tests with real makers: dockerd's BuildKit, skopeo, umoci, oras, buildah."""
