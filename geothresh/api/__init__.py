"""The public functions, each of which composes the floors below: one module per function."""
