"""How a process becomes the user's server."""
