"""The Tidelog agent. Importing the package does nothing."""
