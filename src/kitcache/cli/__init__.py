"""The command line: the only package that reads the environment, prints and exits."""

PLUGIN_CALL = "docker-cli-plugin"
"""The first word of the launcher `docker-kitcache`; docker's own words follow."""
COMPLETE_CALL = "__complete"
"""The first word of a completion script, as in those of docker and kubectl."""
