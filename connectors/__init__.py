"""The venues: from an exchange's bytes to normalised events.

A connector owns one link to one venue. It knows nothing of clients, of the tape or of the daemon; it is handed a
`Context` (see `connectors.base`) and publishes events through it.
"""
