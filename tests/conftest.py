"""Settings of all tests."""

from hypothesis import HealthCheck, settings

# How fast an example is made depends on what else the machine does; the claims do not.
settings.register_profile("rezero", suppress_health_check=[HealthCheck.too_slow], deadline=None)
settings.load_profile("rezero")
