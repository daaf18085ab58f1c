"""What a step trains on: new problems, and the interface of every other source."""
