"""The command lines: what is typed becomes a `Request`, what comes of it is printed, once."""
