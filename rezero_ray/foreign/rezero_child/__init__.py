"""What runs in an environment's own interpreter. Imports the standard library, that interpreter's verifiers and
itself, by relative names only: there `rezero_ray` is not installed."""
