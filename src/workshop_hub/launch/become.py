"""Runs as the user, under sudo: checks one order from the hub, starts the server, reports, ends.

Trusts neither its arguments (there are none) nor its environment: everything comes in one
message on standard input, so that no token shows in `ps` or in sudo's log. What it has to say
goes to standard output, a file that the hub opened; what the server prints goes to standard
error, the server's log. Started as `python -I -S become.py`, with few imports, because every
start pays for them.

Message: fields `name=value`, each ended by NUL, from PROTOCOL to END.
Report: lines `cgroup PATH`, `pid PID START_TIME`, `exit CODE`, `error KIND<tab>what happened`.
"""

import errno
import os
import pwd
import sys
import time

PROTOCOL = "workshop-hub 1"
END = "end"
MAX_MESSAGE = 1 << 20
"""Bytes; beyond what Linux lets a program have as arguments and environment in practice."""

MARKER = "WORKSHOP_HUB_SERVER"
"""Environment variable that names the server in everything that it starts."""

SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin"

REFUSED = 3
"""Exit code after an `error` line; sudo's own refusals give 1."""

SUPERVISOR = 'trap : HUP INT TERM; "$@" >&2; echo "exit $?"'
"""Outlives the server, to say how it ended. Ignoring the signals would hand that on to the server;
trapping them does not."""

FLAGS = "BEIOPSbdqsuv"
"""Flags of Python that leave a script to be run as it is."""


class Refused(Exception):
    """The order cannot be carried out. kind: tells the hub what to advise."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Message:
    """The fields of one order."""

    def __init__(self, fields: list[str]) -> None:
        self._values: dict[str, list[str]] = {}
        for field in fields:
            name, _, value = field.partition("=")
            self._values.setdefault(name, []).append(value)

    def all(self, name: str) -> list[str]:
        """Return the values of every field called `name`."""
        return self._values.get(name, [])

    def one(self, name: str) -> str:
        """Return the value of the field called `name`; empty where there is none."""
        return (self.all(name) or [""])[0]


def read_message() -> Message:
    """Read the whole order; a hub that was killed while it wrote has ordered nothing."""
    data = b""
    while len(data) <= MAX_MESSAGE:
        piece = os.read(0, 65536)
        if not piece:
            break
        data += piece
    fields = os.fsdecode(data).split("\0")
    if fields[0] != PROTOCOL or fields[-2:] != [END, ""]:
        raise Refused("protocol", "The launcher was given no complete order of this version.")
    return Message(fields[1:-2])


def report(line: str) -> None:
    """Tell the hub one thing."""
    os.write(1, os.fsencode(line.replace("\n", " ") + "\n"))


def check_identity(message: Message) -> None:
    """Refuse root, and an account that is not the one the hub has looked up."""
    if 0 in (os.getuid(), os.geteuid()):
        raise Refused("account", "No server is started as root.")
    if message.one("uid") != str(os.getuid()):
        expected = message.one("uid")
        raise Refused("uid", f"The account's uid is {os.getuid()}; the hub expected {expected}.")


def check_cgroup(message: Message) -> None:
    """Refuse to run anywhere but where the limits are: pam_systemd may have moved this process."""
    expected = message.one("cgroup")
    if not expected:
        return
    with open("/proc/self/cgroup", encoding="utf-8", errors="surrogateescape") as lines:
        found = next((line[3:].rstrip("\n") for line in lines if line.startswith("0::")), "")
    report(f"cgroup {found}")
    if found != expected:
        raise Refused("cgroup", f"sudo ran the launcher in the cgroup {found}, not in {expected}.")


def check_output() -> None:
    """Refuse where sudo reads along: its pipes would break when it ends, and the server with them.

    S_ISREG spelled out: `stat` is one import less.
    """
    if any(os.fstat(fd).st_mode & 0o170000 != 0o100000 for fd in (1, 2)):
        raise Refused("output", "sudo records what the launcher prints.")


def enter_home(home: str) -> None:
    """Make the home the working directory, and check that a server can live in it."""
    name = f"The home directory {home}"
    try:
        os.chdir(home)
    except FileNotFoundError as exc:
        raise Refused("home", f"{name} does not exist.") from exc
    except OSError as exc:
        raise Refused("home", f"{name} cannot be entered: {exc.strerror}.") from exc
    if not os.access(".", os.R_OK | os.W_OK):
        owner = os.stat(".").st_uid
        raise Refused("home", f"{name} belongs to uid {owner}; the account may not write there.")
    check_space(name)


def check_space(name: str) -> None:
    """Refuse a full home: a server would end there with a message that nobody understands."""
    try:
        trial = os.open(".", os.O_TMPFILE | os.O_WRONLY, 0o600)
        try:
            os.write(trial, bytes(65536))
        finally:
            os.close(trial)
    except OSError as exc:
        if exc.errno in (errno.ENOSPC, errno.EDQUOT):
            raise Refused("full", f"{name} is full: {exc.strerror}.") from exc


def check_directory(message: Message) -> None:
    """Make the notebook directory where asked to; refuse one that leads out of the roots.

    It does not become the working directory: programs take configuration from there, and a
    shared folder may be writable by others.
    """
    folder = message.one("dir")
    if not folder:
        return
    name = f"The notebook directory {folder}"
    real = os.path.realpath(folder)
    roots = message.all("root")
    if not any(is_inside(real, os.path.realpath(root)) for root in roots):
        allowed = ", ".join(roots)
        raise Refused("outside", f"{name} leads to {real}, outside of what is allowed: {allowed}.")
    try:
        if message.one("create"):
            os.makedirs(real, exist_ok=True)
        os.close(os.open(real, os.O_RDONLY | os.O_DIRECTORY))
    except FileNotFoundError as exc:
        raise Refused("absent", f"{name} does not exist.") from exc
    except OSError as exc:
        raise Refused("directory", f"{name} cannot be used: {exc.strerror}.") from exc


def is_inside(path: str, root: str) -> bool:
    """Say whether `path` is `root` or below it; both without links."""
    return path == root or path.startswith(root.rstrip("/") + "/")


def environment(account: pwd.struct_passwd, message: Message) -> dict[str, str]:
    """Return the server's environment: the account's, overlaid with what the hub wants."""
    env = {
        "HOME": account.pw_dir,
        "LANG": "C.UTF-8",
        "LOGNAME": account.pw_name,
        "PATH": SYSTEM_PATH,
        "SHELL": account.pw_shell or "/bin/sh",
        "USER": account.pw_name,
    }
    env.update(entry.partition("=")[::2] for entry in message.all("env"))
    env[MARKER] = message.one("key")
    return env


def find_program(name: str, path: str) -> str:
    """Return the program's path as the server's own PATH finds it."""
    folders = [""] if "/" in name else path.split(":")
    found = ""
    for candidate in (os.path.join(folder, name) for folder in folders):
        try:
            is_folder = os.stat(candidate).st_mode & 0o170000 == 0o040000
        except PermissionError:
            found = candidate
            continue
        except OSError:
            continue
        if not is_folder and os.access(candidate, os.X_OK):
            return candidate
        found = candidate
    if found:
        raise Refused("closed", f'The account may not execute "{found}".')
    if " " in name:
        raise Refused(
            "string", f'There is no program called "{name}"; it looks like a whole command.'
        )
    where = "" if "/" in name else f" in PATH ({path})"
    raise Refused("program", f'The program "{name}" was not found{where}.')


def command(program: str, message: Message) -> list[str]:
    """Return the server's command; by way of start.py where that is wanted and sure to fit."""
    words = [program, *message.all("arg")[1:]]
    starter = os.path.join(os.path.dirname(__file__), "start.py")
    if message.one("fast") and os.path.basename(program) == "jupyterhub-singleuser":
        python = interpreter(program)
        if python and os.access(starter, os.R_OK):
            return [*python, starter, *words]
    return words


def interpreter(script: str) -> list[str]:
    """Return the words that the system puts before a Python script; none for anything else."""
    try:
        with open(script, "rb") as file:
            line = os.fsdecode(file.readline(256))
    except OSError:
        return []
    words = line[2:].split() if line.startswith("#!") and line.endswith("\n") else []
    path, *flags = words or [""]
    flag = " ".join(flags)
    # with -c, -m, -x and others Python runs something else, or not all of the script
    usual = not flag or (flag[0] == "-" and flag[1:].isalpha() and not flag[1:].strip(FLAGS))
    is_python = path.startswith("/") and os.path.basename(path).startswith("python")
    return words if is_python and usual else []


def write_certificates(message: Message) -> None:
    """Write the certificates below the home without following a link that anybody has put there."""
    folder = message.one("certificates")
    if not folder:
        return
    try:
        place = os.open(".", os.O_RDONLY | os.O_DIRECTORY)
        for part in folder.split("/"):
            place = private_folder(part, place)
        for entry in message.all("file"):
            name, _, text = entry.partition("=")
            write_private(name, text, place)
    except OSError as exc:
        what = f"The certificates cannot be written below ~/{folder}: {exc.strerror}."
        raise Refused("certificates", what) from exc


def private_folder(name: str, place: int) -> int:
    """Make or open the folder `name` in the open folder `place`; return it open."""
    try:
        os.mkdir(name, 0o700, dir_fd=place)
    except FileExistsError:
        pass
    folder = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=place)
    os.fchmod(folder, 0o700)
    return folder


def write_private(name: str, text: str, place: int) -> None:
    """Write a file of mode 0600 into the open folder `place`, in the place of an older one."""
    try:
        os.unlink(name, dir_fd=place)
    except FileNotFoundError:
        pass
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    with os.fdopen(os.open(name, flags, 0o600, dir_fd=place), "w") as file:
        file.write(text)


def start(message: Message) -> None:
    """Check the order, start the server in a session of its own, and report its process."""
    check_cgroup(message)
    check_output()
    account = pwd.getpwuid(os.getuid())
    enter_home(account.pw_dir)
    check_directory(message)
    env = environment(account, message)
    program = find_program(message.all("arg")[0], env["PATH"])
    write_certificates(message)
    supervisor = ["/bin/sh"]
    if message.one("no_new_privileges"):
        supervisor = [find_program("setpriv", SYSTEM_PATH), "--no-new-privs", *supervisor]
    try:
        child = os.posix_spawn(
            supervisor[0],
            [*supervisor, "-c", SUPERVISOR, "sh", *command(program, message)],
            env,
            file_actions=[(os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0)],
            setsid=True,
            setsigmask=(),
            # an ignored signal stays ignored in what is started; KILL and STOP have no setting
            setsigdef=[number for number in range(1, 32) if number not in (9, 19)],
        )
    except (OSError, ValueError) as exc:
        raise Refused("command", f"The server cannot be started: {exc}.") from exc
    report(f"pid {child} {process(child)[2]}")


def process(pid: "int | str") -> tuple[str, int, int]:
    """Return state, session and start time (clock ticks since boot) as /proc/PID/stat has them."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()
    return fields[0].decode(), int(fields[3]), int(fields[19])


def signal(message: Message) -> None:
    """Send signals to a server's session or to everything it started, as the user may do.

    `session` and `start` name the supervisor. With `tree`, whatever carries the server's mark is
    meant too, again and again until nothing of it is left.
    """
    signals = [int(number) for number in message.one("signals").split()]
    for _ in range(100 if message.one("tree") else 1):
        reached = [pid for pid in members(message) if send(pid, signals)]
        if not reached or not message.one("tree"):
            return
        time.sleep(0.02)
    raise Refused("signal", f"{len(reached)} processes of the server would not end.")


def send(pid: int, signals: list[int]) -> bool:
    """Send the signals; say whether the process was there, and this account's to signal."""
    try:
        for number in signals:
            os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def members(message: Message) -> list[int]:
    """Find the processes that belong to the server."""
    session = int(message.one("session") or 0)
    try:
        if session and process(session)[2] != int(message.one("start")):
            session = 0  # somebody else has that number by now
    except OSError:
        pass  # a session outlives its leader, and its number is not given to others before
    mark = os.fsencode(f"{MARKER}={message.one('key')}") if message.one("tree") else b""
    return [
        int(name) for name in os.listdir("/proc") if name.isdigit() and belongs(name, session, mark)
    ]


def belongs(pid: str, session: int, mark: bytes) -> bool:
    """Say whether a process is alive and in the session, or carries the mark."""
    try:
        state, its_session, _ = process(pid)
        if state in "ZX":
            return False
        if session and its_session == session:
            return True
        if not mark:
            return False
        with open(f"/proc/{pid}/environ", "rb") as file:
            return mark in file.read().split(b"\0")
    except OSError:
        return False


def main() -> int:
    """Carry out the order on standard input; return the exit code."""
    try:
        message = read_message()
        check_identity(message)
        {"start": start, "signal": signal}[message.one("verb")](message)
    except Refused as exc:
        report(f"error {exc.kind}\t{exc}")
        return REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(main())
