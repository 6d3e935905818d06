"""From a speaker's spoken consent to a signed receipt."""
