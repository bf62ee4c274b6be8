"""People of a workshop: accounts in bulk, their passwords, and the sheet to hand out."""
