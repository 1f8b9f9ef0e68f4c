"""`tickerd watch`, `channels` and `ping`."""
