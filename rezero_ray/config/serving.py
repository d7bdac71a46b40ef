"""`[serve]`: how `rezero serve` puts a model, or a run's adapter on its base, on the network."""

from typing import Annotated, Any

from pydantic import Field

from rezero_ray.config.table import Table

Port = Annotated[int, Field(ge=0, le=65535)]


class ServeConfig(Table):
    """The server. What the engine is like stands in `[inference]`. Training does not read this table."""

    host: str = Field(
        default="127.0.0.1",
        min_length=1,
        description="Address to listen on; `0.0.0.0` for every network of the machine.",
    )
    port: Port = Field(default=8000, description="Port to listen on; 0 for one that is free.")
    api_key_env: str | None = Field(
        default=None,
        description="Environment variable with the key that clients must send; when unset VLLM_API_KEY, and where "
        "that is not set either a key is made and printed.",
    )
    arguments: dict[str, Any] = Field(
        default_factory=dict,
        description='Further arguments of `vllm serve`, by their names: `{ reasoning_parser = "glm45" }`.',
    )
