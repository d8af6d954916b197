"""What agents carry out."""
