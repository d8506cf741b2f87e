"""How much the random tests search: ``HYPOTHESIS_PROFILE=quick`` for a short round."""

import os

from hypothesis import HealthCheck, settings

COMMON = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow], "print_blob": True}
settings.register_profile("full", max_examples=100, **COMMON)
settings.register_profile("quick", max_examples=20, **COMMON)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "full"))
