"""Shared by evaluation, dedupe and audit: bootstrap, confusions, figures, plots and pages."""
