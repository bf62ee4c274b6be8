"""Look at everything before the first account is made: all that is wrong is said at once."""

from __future__ import annotations

from collections.abc import Sequence

from workshop_hub.errors import UsersRefused
from workshop_hub.people import checks, hashes, making, ours, starter
from workshop_hub.people.ours import Found
from workshop_hub.people.plan import Plan, Settings, plan
from workshop_hub.people.sheet import Row, Sheet
from workshop_hub.people.wanted import Wanted


def plans(
    people: Sequence[Wanted],
    settings: Settings,
    sheet: Sheet,
    *,
    pattern: str,
    problems: Sequence[str] = (),
) -> list[Plan]:
    """Return what is to do for each of them. UsersRefused with all that is wrong.

    sheet: as it was read. It forgets what does not hold any more; nothing is written.
    pattern: what names must match. problems: what is known to be wrong already.
    """
    homes = checks.homes_folder()
    found = {each.name: ours.find(each.name) for each in people if _may_exist(each.name)}
    wrong = [*problems, *checks.group_problems(settings.groups)]
    for each in people:
        wrong += checks.person_problems(each, found.get(each.name), pattern=pattern, homes=homes)
    if wrong:
        raise UsersRefused.listing(list(dict.fromkeys(wrong)))
    sheet.rows = making.current(sheet.rows)
    forget_changed(sheet, {each.name for each in people})
    return [_plan(each, found[each.name], settings, sheet) for each in people]


def _may_exist(name: str) -> bool:
    return "\0" not in name and name.isprintable()


def _plan(wanted: Wanted, found: Found | None, settings: Settings, sheet: Sheet) -> Plan:
    row = sheet.rows.get(wanted.name)
    candidates = [wanted.password, row.password if row else ""]
    known = next((each for each in candidates if each and fits(found, each)), "")
    lacking = starter.missing(settings.files, found.home) if found else list(settings.files)
    return plan(wanted, found, settings, lacking, known)


def fits(found: Found | None, password: str) -> bool:
    """Say whether it is the account's password now."""
    return bool(found and found.secret and hashes.fits(password, found.secret.hash))


def forget_changed(sheet: Sheet, but: set[str]) -> None:
    """Forget the passwords on the sheet that people have changed; not those of the names `but`."""
    for name, row in sheet.rows.items():
        if name not in but and row.password and not fits(ours.find(name), row.password):
            sheet.rows[name] = Row(name, "", row.full_name, row.address, row.uid)
