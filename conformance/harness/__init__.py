"""How a server is observed and how the evidence is judged."""
