"""Mails: phishing or not, and the quotes that show it."""

from environments.phishing_detection.environment import load_environment

__all__ = ["load_environment"]
