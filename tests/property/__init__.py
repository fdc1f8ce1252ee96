"""Laws that hold for every cache: one a file, against a model that knows nothing of kitcache."""
