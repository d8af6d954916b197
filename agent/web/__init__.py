"""What an agent serves over HTTP: metrics, health and the page. Read-only, bounded, and of no
consequence for backups: whatever fails here fails alone."""
