"""What servers are asked, and what comes back: prompts, chats with known answers, data sets, the client."""
