"""What evaluation and audit share: bootstrap intervals, plots, Markdown and HTML reports."""
