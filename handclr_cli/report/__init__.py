"""Pictures for people: contact sheets and curves."""
