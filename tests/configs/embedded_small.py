"""Many small servers, embedded in the pages of a learning platform.

Written for a spawner with limits and PAMAuthenticator; only the two class names were changed.
`add_user.sh` stands beside this file.
"""

c = get_config()  # noqa: F821

EMBEDDING = "frame-ancestors 'self' https://learn.example.org"

c.JupyterHub.bind_url = "http://127.0.0.1:8000"
c.JupyterHub.spawner_class = "workshop"
c.JupyterHub.authenticator_class = "workshop"
c.JupyterHub.tornado_settings = {"headers": {"Content-Security-Policy": EMBEDDING}}

c.Spawner.cpu_limit = 0.1
c.Spawner.cpu_guarantee = 0.1
c.Spawner.mem_limit = "128M"
c.Spawner.mem_guarantee = "128M"
c.Spawner.args = [
    "--ServerApp.tornado_settings={'headers': {'Content-Security-Policy': \"" + EMBEDDING + '"}}'
]

c.Authenticator.allow_all = True
c.PAMAuthenticator.admin_groups = {"wheel"}
c.LocalAuthenticator.create_system_users = True
c.LocalAuthenticator.add_user_cmd = ["./add_user.sh"]
