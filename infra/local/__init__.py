"""This machine as a Ray cluster."""
