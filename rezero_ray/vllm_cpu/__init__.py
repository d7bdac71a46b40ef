"""vLLM on the CPU: a platform with a LoRA operation that groups tokens by adapter, and what depends on the processor.

vLLM's own operation copies the adapter's matrices once per token, which costs a factor of four to five in
tokens/s (benchmarks/rollout.py). vLLM's extension point is the platform: `plugin.register` is an entry point of
the group `vllm.platform_plugins`; it names `platform.GroupedLoraCpuPlatform`, whose punica wrapper is ours.
Nothing of vLLM is patched.
"""
