"""Puts right, in a child of the warm launcher, what loaded modules keep of the launcher.

What it knows of is in `preload.MENDED`, and whatever keeps randomness that must not be shared.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from types import ModuleType

from workshop_hub.launch import preload
from workshop_hub.launch.preload import HUB_AUTH, Preloaded


def mend(loaded: Preloaded) -> None:
    """Have every loaded module hold what it would if this process had imported it."""
    for name, mend_module in _MENDING.items():
        if module := sys.modules.get(name):
            mend_module(module)
    loaded.answers.give()


def _set_default(cls: type, name: str, value: str) -> None:
    """Change the default of a trait that was set when its class was made."""
    trait = vars(cls)[name]
    trait.default_value = value
    _set_initial(cls, name, trait, value)


def _set_initial(cls: type, name: str, trait: object, value: str) -> None:
    """Change what new instances begin with, where the class and its subclasses note that."""
    known = vars(cls).get("_static_immutable_initial_values", {})
    if name in known and getattr(cls, name) is trait:
        known[name] = value
    subclasses: list[type] = cls.__subclasses__()
    for subclass in subclasses:
        _set_initial(subclass, name, trait, value)


def _mend_hub_auth(module: ModuleType) -> None:
    for name, (variable, _) in HUB_AUTH.items():
        if value := os.environ.get(variable):
            _set_default(module.HubAuth, name, value)


def _mend_session(module: ModuleType) -> None:
    _set_default(module.Session, "username", os.environ.get("USER", "username"))


def _mend_lab(module: ModuleType) -> None:
    _set_default(module.LabApp, "user_settings_dir", module.get_user_settings_dir())
    _set_default(module.LabApp, "workspaces_dir", module.get_workspaces_dir())


def _mend_nbconvert(module: ModuleType) -> None:
    folders = module.jupyter_path("nbconvert", "templates")
    module.TemplateExporter.template_data_paths.default_args = (folders,)


def _mend_trash(module: ModuleType) -> None:
    """Find the user's trash. All of it anew would copy 0.5 MB of pages."""
    expanduser, join = os.path.expanduser, os.path.join  # of bytes, as it keeps them
    home = expanduser(os.environb.get(b"XDG_DATA_HOME", b"~/.local/share"))
    trash = join(home, b"Trash")
    own = os.getuid()
    known = {
        "XDG_DATA_HOME": home,
        "HOMETRASH_B": trash,
        "HOMETRASH": os.fsdecode(trash),
        "uid": own,
        "TOPDIR_FALLBACK": b".Trash-%d" % own,
    }
    rest = [value for name, value in vars(module).items() if name not in known]
    if known.keys() <= vars(module).keys() and os.fsencode(preload.HOME) not in b"".join(
        os.fsencode(value) for value in rest if isinstance(value, str | bytes)
    ):
        vars(module).update(known)
    else:  # another version
        importlib.reload(module)


def _mend_wsgi(module: ModuleType) -> None:
    module.BaseHandler.os_environ = module.read_environ()


def _mend_sysconfig(module: ModuleType) -> None:
    variables = vars(module).get("_CONFIG_VARS")
    if variables:
        variables["userbase"] = module._getuserbase()


def _mend_multiprocessing(module: ModuleType) -> None:
    own = module.current_process()
    own.authkey = os.urandom(32)
    own._config["authkey"] = own.authkey


def _mend_uuid(module: ModuleType) -> None:
    vars(module).update(_node=None, _last_timestamp=None)


def _mend_numpy(module: ModuleType) -> None:
    module.seed()


_MENDING: dict[str, Callable[[ModuleType], object]] = {
    "jupyter_client.session": _mend_session,
    "jupyterhub.services.auth": _mend_hub_auth,
    "jupyterlab.labapp": _mend_lab,
    "multiprocessing.process": _mend_multiprocessing,
    "nbconvert.exporters.templateexporter": _mend_nbconvert,
    "numpy.random": _mend_numpy,
    "send2trash.plat_other": _mend_trash,
    "sysconfig": _mend_sysconfig,
    "uuid": _mend_uuid,
    "wsgiref.handlers": _mend_wsgi,
}
"""What puts right what a loaded module keeps of its importer, or of its importer's randomness."""
