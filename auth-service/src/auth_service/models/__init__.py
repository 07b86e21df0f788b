"""What comes in and goes out, as Pydantic models: a file for each room of the API."""
