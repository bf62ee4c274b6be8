"""A server is a process of the user, started through sudo and held by a control group."""

from workshop_hub.backends.process.backend import ProcessBackend

__all__ = ["ProcessBackend"]
