"""Logs of a minute of traffic: attack or not, of what kind, and which lines show it."""

from environments.network_logs.environment import load_environment

__all__ = ["load_environment"]
