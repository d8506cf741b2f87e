"""The cost model: pure functions on arrays."""
