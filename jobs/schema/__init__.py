"""Tables, and their making and upgrading."""
