"""The configuration: read, checked, composed of the sections that the components declare, and compared at a reload."""
