"""One process per run directory: who holds it, whether the holder lives, and how it is taken and released."""
