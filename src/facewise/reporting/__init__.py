"""Shared by evaluation and audit: bootstrap intervals, confusions, plots, Markdown and HTML."""
