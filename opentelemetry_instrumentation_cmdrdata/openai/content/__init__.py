"""What the requests and answers of the openai SDK say, as messages by the GenAI conventions; one class per shape."""
