"""What would break production if two services disagreed on it: nothing else may live here."""
