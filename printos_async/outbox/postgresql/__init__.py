"""PostgreSQL: its URL, its sessions, and what its errors mean."""
