"""python -m kitcache."""

from kitcache.cli.main import run

run()
