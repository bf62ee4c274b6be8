"""Mechanisms of the machine: they know nothing of the hub."""
