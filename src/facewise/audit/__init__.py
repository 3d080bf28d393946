"""Audits: who is in an annotated table, with counts corrected for the model's own errors."""
