"""A tape that several machines share: carried by an engine, Valkey or Redis, whose stream all of them follow."""
