"""What a process finds around it: proxies, folders for sockets, limits, addresses, visible GPUs.

Each choice is a pure function of environment variables and of what the kernel says. Nothing else of the project is
imported.
"""
