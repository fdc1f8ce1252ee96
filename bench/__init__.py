"""Benchmarks: ratios against peers, alternating runs of whole processes. `make bench` runs all."""
