"""All that knows the openai SDK: what is patched, what is read of its requests and answers, and what they cost."""
