"""The one search loop and its parts."""
