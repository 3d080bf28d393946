"""Every face in a photo, with its apparent age, gender and ethnicity."""
