"""The tape in memory and on disk, the cursors on it, and the ledger of gaps."""
