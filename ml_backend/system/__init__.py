"""The machine: disk, clock, memory, processes, files that are written whole, logs."""
