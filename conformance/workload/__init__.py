"""The requests to servers and their answers: prompts, chats with known answers, data sets, the client."""
