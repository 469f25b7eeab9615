"""Language models: questions in, checked and durable texts out; in this process or behind an endpoint."""
