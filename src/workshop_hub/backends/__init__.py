"""How a server is started and held to its limits: one module a backend."""
