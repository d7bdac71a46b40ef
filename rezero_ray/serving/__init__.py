"""Serving what was trained: which models (`targets`), vLLM's server as a process (`server`), its key (`guard`)."""
