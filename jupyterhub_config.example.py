"""A configuration of JupyterHub with workshop-hub: two groups of people, two backends.

Copy it, change what differs, and check it before you start the hub:

    workshop-hub doctor -f jupyterhub_config.py
    jupyterhub -f jupyterhub_config.py

Every option is explained in docs/reference.
"""

c = get_config()

# --- the hub -----------------------------------------------------------------------------------

c.JupyterHub.spawner_class = "workshop"
c.JupyterHub.authenticator_class = "workshop"

# Where people come in. For others than yourself, put a web server with TLS in front of it.
c.JupyterHub.bind_url = "http://127.0.0.1:8000"

# Where servers find the hub. Containers cannot reach 127.0.0.1: give this machine's address in
# their network, which for Docker's own bridge is this one. Without Docker, leave the line out, and
# "20-containers" below: the hub does not start with an address that the machine does not have.
c.JupyterHub.hub_ip = "172.17.0.1"

# Servers go on while the hub is restarted; the hub finds them again.
c.JupyterHub.cleanup_servers = False

# --- who may log in ----------------------------------------------------------------------------

# Names and passwords are those of the machine (PAM). These are groups of the machine:
c.LocalAuthenticator.allowed_groups = {"course"}
c.PAMAuthenticator.admin_groups = {"teachers"}

# With a code, people make themselves accounts in the group, on the page /hub/join; "" for nobody.
c.WorkshopAuthenticator.join_code = ""  # "seven-green-bottles"
c.WorkshopAuthenticator.join_group = "course"

# --- what everybody gets -----------------------------------------------------------------------

# A process of the user, started through sudo; "docker" for a container with the user's home.
c.WorkshopSpawner.backend = "process"

# The most that a server may use, and what it is promised. A server does not start where this
# cannot be enforced; with limits_policy = "warn" it starts without.
c.WorkshopSpawner.cpu_limit = 2
c.WorkshopSpawner.cpu_guarantee = 0.25
c.WorkshopSpawner.mem_limit = "2G"
c.WorkshopSpawner.mem_guarantee = "256M"
c.WorkshopSpawner.pids_limit = 1000
c.WorkshopSpawner.limits_policy = "enforce"

# Where people find themselves; {username}, {servername}, {home} and {uid} are filled in.
c.WorkshopSpawner.notebook_dir = "~/notebooks"
c.WorkshopSpawner.create_notebook_dir = True
c.WorkshopSpawner.default_url = "/lab"

# For containers. The image needs jupyterhub-singleuser; image/Dockerfile makes this one.
c.WorkshopSpawner.image = "workshop-hub/singleuser"
c.WorkshopSpawner.read_only_volumes = {}  # {"/srv/data": "/data"}

# --- what groups get instead -------------------------------------------------------------------

# These are groups of the hub: an administrator can change them on its page, too.
c.JupyterHub.load_groups = {
    "statistics": {"users": ["ada"]},
    "containers": {"users": ["grace"]},
}

# All that c.WorkshopSpawner has can differ by group. Who is in several gets them in this order.
c.WorkshopSpawner.group_overrides = {
    "10-statistics": {
        "groups": ["statistics"],
        "spawner_override": {"backend": "process", "mem_limit": "4G", "cpu_limit": 4},
    },
    "20-containers": {
        "groups": ["containers"],
        "spawner_override": {"backend": "docker", "mem_limit": "1G", "cpu_limit": 1},
    },
}

# --- facts of this machine ---------------------------------------------------------------------

# Ports for servers, outside the range that outgoing connections take theirs from.
c.ProcessBackend.port_range = (20000, 29999)

# The network of the containers. A network of your own keeps them apart from other containers.
c.DockerBackend.network_name = "bridge"
