"""The benchmark: whole classes that start at once, on real hubs, side by side. `make bench`."""
