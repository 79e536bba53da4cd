"""Sweeps: many runs of one configuration with different bindings."""
