"""Entry point of the group `vllm.platform_plugins`."""


def register() -> str | None:
    """Return the name of our platform class where vLLM would run on its CPU platform, else None."""
    from vllm.platforms import cpu_platform_plugin

    if cpu_platform_plugin() is None:
        return None
    return "rezero_ray.vllm_cpu.platform.GroupedLoraCpuPlatform"
