"""A chat bot with a secret, attacked in up to three turns."""

from environments.redteam_attack.environment import load_environment

__all__ = ["load_environment"]
