"""A server is a container with the user's uid and home."""

from workshop_hub.backends.docker.backend import DockerBackend

__all__ = ["DockerBackend"]
