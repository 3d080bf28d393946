"""Who is in an annotated table: counts corrected for the model's own errors, and contact sheets."""
