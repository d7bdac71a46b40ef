"""Forecasts of seconds, and what was measured beside them (docs/forecast.md). Memory: `rezero_ray.preflight.memory`."""
