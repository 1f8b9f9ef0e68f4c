"""A websocket link to a venue: open it, read it, subscribe on it, hand it over to the next one."""
