"""A class on one machine: the hub is an account of its own, servers start through sudo.

Written for SudoSpawner and PAMAuthenticator; only the two class names were changed.
"""

c = get_config()  # noqa: F821

c.JupyterHub.bind_url = "http://127.0.0.1:8000"
c.JupyterHub.spawner_class = "workshop"
c.JupyterHub.authenticator_class = "workshop"

c.Spawner.cmd = ["jupyter-labhub"]
c.Spawner.default_url = "/lab"
c.Spawner.notebook_dir = "~/notebooks"
c.Spawner.environment = {"OMP_NUM_THREADS": "1"}
c.Spawner.start_timeout = 120

c.Authenticator.allowed_users = {"alice", "bob"}
c.Authenticator.admin_users = {"alice"}
c.LocalAuthenticator.create_system_users = True
c.LocalAuthenticator.add_user_cmd = ["sudo", "-n", "/usr/sbin/useradd", "-m", "-s", "/bin/bash"]
c.PAMAuthenticator.open_sessions = False
