"""What this service is told and answers, as the API document shows it."""
