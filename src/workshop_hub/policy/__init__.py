"""What to do: pure and synchronous, without I/O and without a clock."""
