"""rezero_ray: reinforcement learning of language-model agents on any Ray cluster."""

__version__ = "0.1.0"
