"""``router doctor``: checks that what the configuration names does what production needs, by doing it."""
