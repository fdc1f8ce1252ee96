"""Garbage collection: survey, plan and sweep, and the commands reset, du, ls and why."""
