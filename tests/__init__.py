"""Tests mirror the modules; shared pieces are imported from the test that owns them."""
