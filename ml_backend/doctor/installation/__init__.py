"""What belongs to nextmask on this machine: environment, disk, state database, server, worker."""
