"""Tests of geothresh.pages."""
