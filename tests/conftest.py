"""How much the random tests search: ``HYPOTHESIS_PROFILE=quick`` for a short round."""

import os

import pytest
from hypothesis import HealthCheck, settings

# Tests run side by side, a process a core: threads of their own would only stand in their way.
# This file is read before NumPy is imported.
for variable in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

COMMON = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow], "print_blob": True}
settings.register_profile("full", max_examples=100, **COMMON)
settings.register_profile("quick", max_examples=20, **COMMON)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "full"))


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep the user's cache out of the tests, and the tests out of the user's cache.

    All processes of one round of tests share theirs: what one has searched the others look up.
    """
    own = tmp_path_factory.getbasetemp()
    shared = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
    os.environ["ENERGYSIM_CACHE"] = str(shared / "cache")
