"""The machine that the daemon runs on: clock, logs, usage, systemd."""
