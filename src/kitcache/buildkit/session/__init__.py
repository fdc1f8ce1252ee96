"""The calls that the daemon can make during a build."""
