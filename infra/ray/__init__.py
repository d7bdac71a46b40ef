"""A Ray cluster that runs already."""
