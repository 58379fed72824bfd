"""Thousands of damaged files through the command line: `make fuzz`."""
