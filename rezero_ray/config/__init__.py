"""The TOML dialect: its schema, how files and flags are laid over each other, and what is wrong with them.

Import from here what the rest of the trainer needs; nothing heavy is imported.
"""

from rezero_ray.config.loading import Draft, Request, load_config, read_draft, read_environment, read_request
from rezero_ray.config.problems import ConfigError, Origin, Problem, render
from rezero_ray.config.resolved import config_id, dump_toml
from rezero_ray.config.schema import Config

__all__ = [
    "Config",
    "ConfigError",
    "Draft",
    "Origin",
    "Problem",
    "Request",
    "config_id",
    "dump_toml",
    "load_config",
    "read_draft",
    "read_environment",
    "read_request",
    "render",
]
