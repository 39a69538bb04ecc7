"""Level 4: resets Django's translations and templates without a reload."""
