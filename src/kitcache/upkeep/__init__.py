"""What a cache needs beside its collector: limits, smaller tags, health, names."""
