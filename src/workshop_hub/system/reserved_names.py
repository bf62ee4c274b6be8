"""Names that no account of a person should have, because programs or people take them for others.

A person called `docker` would have a group of that name, and with it the machine once the engine
is installed; one called `admin` or `support` is believed by the others.
"""

from __future__ import annotations

_SYSTEM = """
    adm apache audio avahi backup bin bind cdrom chrony cups daemon dbus debian dialout dip disk
    dnsmasq docker fax floppy ftp games gdm gnats halt incus input irc kmem kvm libvirt lightdm
    list lp lxc lxd lxd-admin mail man messagebus microk8s mlocate mysql named netdev news nginx
    nobody nogroup nslcd ntp operator plocate plugdev podman polkitd postfix postgres proxy
    pulse pulse-access redhat render root rpc rpcuser rtkit saned sasl scanner sddm sgx shadow
    shutdown slurm snmp spool squid src ssh sshd sssd staff statd sudo sudoers sync sys syslog
    systemd tape tcpdump tss tty ubuntu ucarp unbound users utempter utmp uucp uuidd vboxusers
    video voice wheel winbind wireshark www www-data zabbix
"""

_PEOPLE = """
    abuse account accounts admin administrator anonymous ansible billing guest help helpdesk
    hostmaster hub info jupyter jupyterhub manager marketing noc noreply owner postmaster
    register sales security service services shared signup superuser support sysadmin system
    teacher test tutor user webmaster workshop workshop-hub
"""

RESERVED = frozenset(f"{_SYSTEM} {_PEOPLE}".split())

_PREFIXES = ("_", "systemd-", "debian-", "libvirt-", "gnome-", "sssd-", "workshop-hub-")
"""What packages begin the names of their accounts with."""


def is_reserved(name: str) -> bool:
    """Say whether the name should be left to the system and to those who run it."""
    return name in RESERVED or name.startswith(_PREFIXES)
