"""Kubernetes and Terraform files that break rules: name the rules and mend the file."""

from environments.config_verification.environment import load_environment

__all__ = ["load_environment"]
