"""Each promise of docs/SECURITY.md, with a test that a breach would fail."""
