"""What evaluation and audit share: bootstrap intervals, confusions, plots, Markdown and HTML."""
