"""A small procedural world of captioned clips, its pixel judge, and the models trained on it."""
