"""Health: what the trainer notices, and what it leaves alone."""
