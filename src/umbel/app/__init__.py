"""The client side: the app, its tasks, and how a call becomes a message and a result."""
