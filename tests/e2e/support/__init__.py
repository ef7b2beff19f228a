"""What the end-to-end tests share: a real server, its config, load, waits. No tests here."""
