"""The public functions. Each has a module of its own and combines the rooms below."""
