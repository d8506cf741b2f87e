"""energysim."""
