"""A workshop in containers: accounts of the machine, homes mounted, the hub reached over a bridge.

Written for dockerspawner's SystemUserSpawner and PAMAuthenticator; only class names were changed,
also where they name a section.
"""

import os

c = get_config()  # noqa: F821

c.JupyterHub.bind_url = "http://0.0.0.0:8000"
c.JupyterHub.hub_ip = "0.0.0.0"
c.JupyterHub.hub_connect_ip = os.environ.get("HUB_CONNECT_IP", "172.17.0.1")
c.JupyterHub.spawner_class = "workshop-docker"
c.JupyterHub.authenticator_class = "workshop"

c.WorkshopDockerSpawner.image = os.environ.get(
    "DOCKER_JUPYTER_IMAGE", "quay.io/jupyter/base-notebook"
)
c.Spawner.default_url = "/lab"
c.Spawner.mem_limit = "1G"
c.Spawner.cpu_limit = 1

c.PAMAuthenticator.service = "login"
c.PAMAuthenticator.open_sessions = False
c.LocalAuthenticator.allowed_groups = {"workshop"}
c.Authenticator.admin_users = ["teacher"]
