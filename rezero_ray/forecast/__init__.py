"""Forecasts of seconds, and what was measured beside them (docs/forecast.md).

Those of memory are in `rezero_ray.preflight.memory`.
"""
