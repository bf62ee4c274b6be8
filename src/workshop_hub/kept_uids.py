"""Which uid each of the hub's users had first: a name that is used again is somebody else's.

They are kept in a table of our own in the hub's database, beside the hub's users: they are backed
up and restored with them, and a user that is deleted takes the uid along, whoever deletes it. The
hub's own tables have no room: `auth_state` needs keys that most sites lack, a spawner's state
comes with the first server, and groups are those of `manage_groups`.
"""

from __future__ import annotations

from typing import Any

from jupyterhub import orm
from sqlalchemy import BigInteger, Column, ForeignKey, Integer, MetaData, Table, insert, select

TABLE = Table(
    "workshop_uids",
    MetaData(),
    Column(
        "user_id",
        Integer,
        ForeignKey(orm.User.__table__.c.id, ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
    ),
    Column("uid", BigInteger, nullable=False),
)


class KeptUids:
    """Reads and writes the table through the hub's own session (`db`), in its event loop."""

    def __init__(self) -> None:
        self._is_there = False

    def of(self, db: Any, name: str) -> int | None:
        """Return the uid that the hub's user has; None where none is kept, or there is no user.

        db: None for a user that is in no database.
        """
        if db is None:
            return None
        self._make_table(db)
        # not through orm.User, with which the hub loads all that a user has
        users = orm.User.__table__
        asked = select(TABLE.c.uid).join(users, users.c.id == TABLE.c.user_id)
        found = db.scalar(asked.where(users.c.name == name))
        return None if found is None else int(found)

    def keep(self, db: Any, name: str, uid: int) -> int:
        """Return the user's uid; keep this one where there is none. The hub must have the user."""
        kept = self.of(db, name)
        if kept is not None:
            return kept
        user = orm.User.find(db, name)
        db.execute(insert(TABLE).values(user_id=user.id, uid=uid))
        db.commit()
        return uid

    def _make_table(self, db: Any) -> None:
        if not self._is_there:
            # on the session's own connection: SQLite has one writer
            TABLE.create(db.connection(), checkfirst=True)
            db.commit()
            self._is_there = True
